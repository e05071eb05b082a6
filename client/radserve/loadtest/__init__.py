"""The load tester: what a served model stands, measured from a caller's place.

::

    Plan ─► requests, made once ─► worker processes ─► records of windows ─► Run ─► Report (JSON)

It is a user of the SDK and adds no way to a server of its own.
"""

from radserve.loadtest._plan import Plan, Scenario
from radserve.loadtest._report import Report, Run, dump_report, parse_report

__all__ = ["Plan", "Report", "Run", "Scenario", "dump_report", "parse_report"]
