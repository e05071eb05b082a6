"""A load test on the terminal: while it runs, and what it measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from radserve.cli._options import wide_console
from radserve.cli._show import printable
from radserve.loadtest import Ending
from radserve.loadtest._figures import Percentile
from radserve.loadtest._words import load_of, percentile_of, server_share_of, state_of

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from radserve.loadtest import Plan, Report, Run, Step, Window
    from radserve.loadtest._figures import Estimate

_NONE = "-"


class Live:
    """A line on standard error, where it is a terminal, that says how far a run is; a context."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._status = console.status(Text("starting"), refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, plan: Plan, window: Window | None) -> None:
        """Show a run's newest window; None while warming up."""
        if self._status is None:
            return
        if window is None:
            self._begin = time.monotonic()
            line = f"{load_of(plan)}: warming up, {plan.warm_up_s:g} s"
        else:
            measured_s = window.begin_s + window.seconds
            rate = window.requests * plan.inputs_per_request / window.seconds
            line = (
                f"{load_of(plan)}: {measured_s:.0f} of at most {plan.budget_s:.0f} s: {rate:.1f} inferences/s,"
                f" p50 {_ms(window.p50_s)}, p{plan.percentile:g} {_ms(window.percentile_s)}"
                + (f", {window.failed} failed" if window.failed else "")
            )
        self._status.update(Text(line))


def print_run(report: Report, run: Run) -> None:
    """Print what a run measured, or why it measured nothing."""
    console = wide_console()
    console.print(Text(_headline(report, run)), soft_wrap=True)
    if run.figures is not None:
        console.print(_figures(run))
    if run.steps and not run.invalid:
        console.print(_steps(run.steps))
    for line in _lines(report, run):
        console.print(printable(line), highlight=False, soft_wrap=True)


def print_runs(report: Report) -> None:
    """Print several runs, a line each, and what the search among them found."""
    console = wide_console()
    numbers = ("inferences/s", "p50 ms", "p95 ms", "p99 ms", "failed")
    table = Table("load", *(Column(name, justify="right") for name in numbers), "state", "windows")
    for run in report.runs:
        figures = run.figures
        tails = [figures and percentile_of(figures, percent) for percent in (50.0, 95.0, 99.0)]
        table.add_row(
            load_of(run.plan),
            _NONE if figures is None else f"{figures.inferences_per_s.value:.4g}",
            *(f"{1e3 * tail.latency_s.value:.4g}" if isinstance(tail, Percentile) else _NONE for tail in tails),
            f"{run.totals.failed}",
            state_of(run),
            "agree" if run.is_stable else "do not agree",
        )
    console.print(table)
    for run in report.runs:
        for line in (*run.invalid, *(f"{one.count} x {one.type}: {one.message}" for one in run.errors)):
            console.print(printable(f"{load_of(run.plan)}: {line}"), highlight=False, soft_wrap=True)
    if report.search is not None and report.search.rate is not None:
        found, goal = report.search, f"p{report.search.percent:g} within {1e3 * report.search.latency_s:g} ms"
        so_far = " so far" if report.is_partial else ""
        line = f"highest rate{so_far} with {goal}: {found.rate:g} requests/s; {found.limit}"
        console.print(printable(line), highlight=False, soft_wrap=True)


def problem_of_all(report: Report) -> str | None:
    """One line where several runs do not tell what was asked."""
    if report.cut_short is not None:
        return f"no further load could be measured: {report.cut_short}"
    if partial := next((run for run in report.runs if run.is_partial), None):
        return problem_of(partial)
    if report.search is not None:
        return None if report.search.rate is not None else f"no rate was found: {report.search.limit}"
    if not any(run.figures is not None and run.is_reached for run in report.runs):
        return problem_of(report.runs[0])
    return None


def problem_of(run: Run) -> str | None:
    """One line where a run measured nothing that can be relied on."""
    if run.invalid:
        return f"the run is invalid: {'; '.join(run.invalid)}"
    if run.is_partial or run.figures is None or not run.is_reached:
        kept = " (what was measured until then is shown above)" if run.is_partial and run.figures else ""
        return f"{run.notes[0]}{kept}" if run.notes else "nothing was measured"
    return None


def _headline(report: Report, run: Run) -> str:
    plan, sent = run.plan, report.inputs
    how = {
        "single-stream": "one request at a time",
        "multi-stream": "one request at a time",
        "server": f"{plan.rate or 0:g} requests/s at random times",
    }.get(plan.scenario.value, f"{plan.concurrency} requests in flight")
    kind = "synthetic inputs" if sent.is_synthetic else f"inputs of {sent.files} files"
    partial = f" PARTIAL ({run.ending.value})" if run.is_partial else ""
    return (
        f"{report.model} {report.version} at {', '.join(report.servers)}: {plan.scenario.value}, {how},"
        f" {plan.inputs_per_request} per request; {sent.count} {kind},"
        f" {sent.bytes_per_request / 1000:.1f} kB a request{partial}"
    )


def _figures(run: Run) -> Table:
    figures = run.figures
    table = Table("", *(Column(name, justify="right") for name in ("value", "95 % from", "to", "n")))
    if figures is None:
        return table

    def add(name: str, estimate: Estimate, n: int, scale: float = 1.0) -> None:
        cells = (
            _NONE if one is None else f"{scale * one:.4g}" for one in (estimate.value, estimate.low, estimate.high)
        )
        table.add_row(name, *cells, f"{n}")

    add("inferences/s", figures.inferences_per_s, figures.inferences)
    add("requests/s", figures.requests_per_s, figures.requests)
    if figures.offered_per_s is not None:
        table.add_row("offered requests/s", f"{figures.offered_per_s:.4g}", _NONE, _NONE, "")
    for one in figures.percentiles:
        add(f"p{one.percent:g} (ms)", one.latency_s, one.n, 1e3)
    table.add_row("mean (ms)", f"{1e3 * figures.mean_s:.4g}", _NONE, _NONE, f"{figures.requests}")
    table.add_row("longest (ms)", f"{1e3 * figures.most_s:.4g}", _NONE, _NONE, f"{figures.requests}")
    return table


def _steps(steps: tuple[Step, ...]) -> Table:
    names = ("requests", "runs", "batch", "queue ms", "input ms", "infer ms", "output ms", "total ms")
    table = Table("in the server, per request", *(Column(name, justify="right") for name in names))
    for step in steps:
        parts = (step.queue_s, step.compute_input_s, step.compute_infer_s, step.compute_output_s, step.total_s)
        table.add_row(
            printable(f"{step.model} {step.version}"),
            f"{step.requests}",
            f"{step.executions}",
            f"{step.inferences / max(1, step.executions):.2f}",
            *(f"{1e3 * part:.3f}" for part in parts),
        )
    return table


def _lines(report: Report, run: Run) -> list[str]:
    cost, totals = run.client, run.totals
    lines = [
        f"{totals.requests} good answers and {totals.failed} failures in all, warm-up included;"
        f" {cost.workers} worker{'s' * (cost.workers > 1)} took {cost.cpu:.2f} processors,"
        f" event loop at work {cost.busy:.0%}"
        + (
            ""
            if cost.lag_p99_s is None
            else f", requests sent late by {_ms(cost.lag_p99_s)} (p99{_share(cost.lag_share)})"
        )
    ]
    if run.figures is not None:
        agreed = "which agree" if run.is_stable else "which do not agree"
        lines.append(f"of {run.figures.windows} windows, {run.figures.seconds:.1f} s together, {agreed}")
        lines += [told] if (told := server_share_of(run)) else []
    lines += [f"{one.count} x {one.type}: {one.message}" for one in run.errors]
    lines += [f"refused: {one.count} x {one.type}, for example {one.message}" for one in report.inputs.refused]
    lines += [f"INVALID: {reason}" for reason in run.invalid]
    lines += [f"note: {note}" for note in run.notes]
    if run.ending is Ending.INTERRUPTED:
        lines.append("interrupted: this is what was measured until then")
    return lines


def _share(part: float | None) -> str:
    return f", up to {part:.0%} of a percentile" if part else ""


def _ms(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{1e3 * seconds:.1f} ms"
