"""The load tester: what a served model stands, measured from a caller's place.

::

    Plan ─► requests, made once ─► worker processes ─► records of windows ─► Run ─► Report (JSON, CSV, HTML)

It is a user of the SDK and adds no way to a server of its own.
"""

from radserve.loadtest._csv import csv_files
from radserve.loadtest._figures import Figures, Step, Window
from radserve.loadtest._html import dump_html
from radserve.loadtest._payload import mean_bytes, payloads_of, rows_of, synthetic
from radserve.loadtest._plan import Plan, Scenario
from radserve.loadtest._report import Ending, Inputs, Report, Run, Search, dump_report, parse_report, this_machine
from radserve.loadtest._run import measure

__all__ = [
    "Ending",
    "Figures",
    "Inputs",
    "Plan",
    "Report",
    "Run",
    "Scenario",
    "Search",
    "Step",
    "Window",
    "csv_files",
    "dump_html",
    "dump_report",
    "mean_bytes",
    "measure",
    "parse_report",
    "payloads_of",
    "rows_of",
    "synthetic",
    "this_machine",
]
