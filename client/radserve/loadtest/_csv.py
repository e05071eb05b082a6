"""A report as tables for spreadsheets and scripts: a line for each run, and a line for each window.

Columns are only ever added, at the end. Times are in seconds, an empty field is a figure that there is not.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import msgspec

from radserve.loadtest._figures import PERCENTILES, Window
from radserve.loadtest._words import state_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from radserve.loadtest._figures import Estimate
    from radserve.loadtest._report import Report, Run

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_files(path: Path, report: Report) -> dict[Path, str]:
    """What to write: the runs to this file, and the windows to ``NAME.windows.csv`` beside it."""
    windows = (
        {"run": place, **msgspec.structs.asdict(window)}
        for place, run in enumerate(report.runs, 1)
        for window in run.windows
    )
    return {
        path: _text(_RUN, (_line(report, place, run) for place, run in enumerate(report.runs, 1))),
        path.with_name(f"{path.stem}.windows{path.suffix}"): _text(("run", *Window.__struct_fields__), windows),
    }


def _estimate(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _line(report: Report, place: int, run: Run) -> dict[str, Any]:
    plan, figures = run.plan, run.figures
    cells: dict[str, Any] = {
        "run": place,
        "began": report.began,
        "model": report.model,
        "version": report.version,
        "servers": " ".join(report.servers),
        "scenario": plan.scenario.value,
        "concurrency": plan.concurrency,
        "rate": plan.rate,
        "inputs_per_request": plan.inputs_per_request,
        "state": state_of(run).replace(" ", "_"),
        "ending": run.ending.value.replace(" ", "_"),
        "is_stable": int(run.is_stable),
        "failed": run.totals.failed,
        "client_cpu": run.client.cpu,
        "client_busy": run.client.busy,
        "client_lag_p99_s": run.client.lag_p99_s,
        "errors": " ".join(f"{one.type}:{one.count}" for one in run.errors),
    }
    if figures is not None:
        cells |= {name: getattr(figures, name) for name in _OF_FIGURES}
        cells |= _estimate("requests_per_s", figures.requests_per_s)
        cells |= _estimate("inferences_per_s", figures.inferences_per_s)
        for one in figures.percentiles:
            if one.percent in PERCENTILES:
                cells |= _estimate(f"p{one.percent:g}_s", one.latency_s)
    return cells


_OF_FIGURES = ("seconds", "windows", "requests", "inferences", "offered_per_s", "mean_s", "least_s", "most_s")
_RUN = (
    *("run", "began", "model", "version", "servers", "scenario", "concurrency", "rate", "inputs_per_request"),
    *("state", "ending", "is_stable", *_OF_FIGURES),
    *(f"{name}{end}" for name in ("requests_per_s", "inferences_per_s") for end in ("", "_low", "_high")),
    *(f"p{percent:g}_s{end}" for percent in PERCENTILES for end in ("", "_low", "_high")),
    *("failed", "client_cpu", "client_busy", "client_lag_p99_s", "errors"),
)


def _text(columns: Iterable[str], lines: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _safe(cell) for name, cell in line.items()})
    return out.getvalue()


def _safe(cell: object) -> object:
    """Text that no spreadsheet takes for a formula; names are a server's."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
