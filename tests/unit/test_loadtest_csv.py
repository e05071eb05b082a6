"""A load test's report as tables for spreadsheets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from support.loads import errors, invalid_run, report_of, run_of

from radserve.loadtest import Plan, Report, Scenario, csv_files

OPEN = Plan(scenario=Scenario.SERVER, rate=60.0, concurrency=1024, percentile=99.0)
FILE = Path("load.csv")
WINDOWS = Path("load.windows.csv")


def lines(report: Report, file: Path = FILE) -> list[dict[str, Any]]:
    return list(csv.DictReader(csv_files(FILE, report)[file].splitlines()))


def test_there_is_a_line_for_each_run_and_for_each_window() -> None:
    report = report_of([run_of(windows=4), run_of(OPEN, windows=6), invalid_run()])
    assert [line["run"] for line in lines(report)] == ["1", "2", "3"]
    assert [line["run"] for line in lines(report, WINDOWS)] == ["1"] * 4 + ["2"] * 6 + ["3"] * 5


def test_the_figures_are_the_reports_to_the_last_digit() -> None:
    run = run_of(OPEN, errors=errors())
    (line,) = lines(report_of([run]))
    figures = run.figures
    assert figures is not None
    for one in figures.percentiles:
        for end, value in (("", one.latency_s.value), ("_low", one.latency_s.low), ("_high", one.latency_s.high)):
            assert float(line[f"p{one.percent:g}_s{end}"]) == value
    assert float(line["requests_per_s"]) == figures.requests_per_s.value
    assert float(line["offered_per_s"]) == figures.offered_per_s
    assert line["errors"] == "ServerOverloadedError:6 DeadlineExceededError:1"
    assert float(lines(report_of([run]), WINDOWS)[2]["p99_s"]) == run.windows[2].p99_s


def test_an_invalid_run_has_empty_figures_and_says_that_it_is_invalid() -> None:
    (line,) = lines(report_of([invalid_run()]))
    assert line["state"] == "invalid"
    assert {line[name] for name in ("requests_per_s", "p50_s", "p99_s_high", "mean_s")} == {""}


def test_columns_are_the_same_whatever_was_measured() -> None:
    texts = [csv_files(FILE, report_of([run])) for run in (run_of(), run_of(OPEN), invalid_run())]
    for file in (FILE, WINDOWS):
        assert len({text[file].splitlines()[0] for text in texts}) == 1


def test_the_first_columns_stay_where_scripts_know_them() -> None:
    head = csv_files(FILE, report_of())[FILE].splitlines()[0].split(",")
    assert head[:9] == [
        *("run", "began", "model", "version", "servers", "scenario", "concurrency", "rate"),
        "inputs_per_request",
    ]


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1"])
def test_no_name_becomes_a_formula(name: str) -> None:
    (line,) = lines(report_of(model=name))
    assert line["model"] == f"'{name}"
