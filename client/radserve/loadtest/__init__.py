"""The load tester: what a served model stands, measured from a caller's place.

::

    Plan ─► requests, made once ─► worker processes ─► records of windows ─► Run ─► Report (JSON, CSV, HTML)

It is a user of the SDK and adds no way to a server of its own.
"""

from radserve.loadtest._compare import Comparison, Verdict, compare
from radserve.loadtest._csv import csv_files
from radserve.loadtest._figures import Figures, Step, Window
from radserve.loadtest._html import dump_html
from radserve.loadtest._payload import mean_bytes, payloads_of, rows_of, synthetic
from radserve.loadtest._plan import Plan, Scenario
from radserve.loadtest._report import Ending, Inputs, Report, Run, Search, dump_report, parse_report, this_machine
from radserve.loadtest._run import measure
from radserve.loadtest._search import Goal, RateSearch, climb, concurrencies, sweep

__all__ = [
    "Comparison",
    "Ending",
    "Figures",
    "Goal",
    "Inputs",
    "Plan",
    "RateSearch",
    "Report",
    "Run",
    "Scenario",
    "Search",
    "Step",
    "Verdict",
    "Window",
    "climb",
    "compare",
    "concurrencies",
    "csv_files",
    "dump_html",
    "dump_report",
    "mean_bytes",
    "measure",
    "parse_report",
    "payloads_of",
    "rows_of",
    "sweep",
    "synthetic",
    "this_machine",
]
