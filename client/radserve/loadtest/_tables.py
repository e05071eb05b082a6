"""The tables of a report's page, which have the numbers of its pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.loadtest._figures import PERCENTILES
from radserve.loadtest._page import MS, NONE, Html, interval, number, table
from radserve.loadtest._words import PARTS, load_of, parts_of, percentile_of, state_of

if TYPE_CHECKING:
    from radserve.loadtest._figures import ErrorCount, Figures, Step
    from radserve.loadtest._report import Report, Run


def of_runs(report: Report) -> Html:
    """Each run's load, figures and state."""
    is_open = any(run.plan.rate is not None for run in report.runs)
    in_batches = any(run.plan.inputs_per_request > 1 for run in report.runs)
    heads = (
        *("run", "load", *(("offered (requests/s)",) if is_open else ()), "achieved (requests/s)"),
        *(("inferences/s",) if in_batches else ()),
        *(f"p{percent:g} (ms)" for percent in PERCENTILES),
        *("answers", "failed", "client CPU (processors)", "state"),
    )

    def measured(figures: Figures) -> list[str]:
        tails = [percentile_of(figures, percent) for percent in PERCENTILES]
        return [
            *([number(figures.offered_per_s)] if is_open else []),
            interval(figures.requests_per_s),
            *([interval(figures.inferences_per_s)] if in_batches else []),
            *(NONE if tail is None else interval(tail.latency_s, MS) for tail in tails),
            number(figures.requests),
        ]

    nothing = [NONE] * (len(heads) - 5)
    rows = [
        [
            str(place),
            load_of(run.plan),
            *(nothing if run.figures is None else measured(run.figures)),
            number(run.totals.failed),
            number(run.client.cpu, form=".2f"),
            state_of(run),
        ]
        for place, run in enumerate(report.runs, 1)
    ]
    return table("All runs; below a figure its 95 % interval", heads, rows, left=(1, len(heads) - 1))


def of_errors(caption: str, unit: str, errors: tuple[ErrorCount, ...]) -> Html:
    """Failures by type; nothing where there are none."""
    rows = [(one.type, number(one.count), one.message) for one in errors]
    return table(caption, ("error", f"{unit}s", f"the first {unit}'s"), rows, left=(2,)) if rows else Html()


def of_windows(run: Run) -> Html:
    """Each window, in order."""
    is_open = run.plan.rate is not None
    heads = (
        *("from (s)", *(("due",) if is_open else ()), "answered", "failed", "waiting at end"),
        *(f"p{percent:g} (ms)" for percent in PERCENTILES),
        "longest (ms)",
    )
    rows = [
        [
            number(window.begin_s),
            *([number(window.due)] if is_open else []),
            *(number(count) for count in (window.requests, window.failed, window.waiting)),
            *(
                number(seconds, MS)
                for seconds in (window.p50_s, window.p90_s, window.p95_s, window.p99_s, window.most_s)
            ),
        ]
        for window in run.windows
    ]
    is_shaded = run.figures is not None and run.figures.windows < len(run.windows)
    return table(f"Windows, in order{'; the figures are of the shaded ones' if is_shaded else ''}", heads, rows)


def of_percentiles(figures: Figures) -> Html:
    """How latencies are spread."""
    rows: list[list[str]] = []
    for one in figures.percentiles:
        ends = (one.latency_s.value, one.latency_s.low, one.latency_s.high)
        rows.append([f"p{one.percent:g}", *(number(end, MS) for end in ends)])
    for name, seconds in (("shortest", figures.least_s), ("mean", figures.mean_s), ("longest", figures.most_s)):
        rows.append([name, number(seconds, MS), NONE, NONE])
    caption = f"Of {figures.requests:,} answers in {figures.windows} windows, {figures.seconds:.4g} s"
    return table(caption, ("", "latency (ms)", "95 % from", "to"), rows)


def of_steps(steps: tuple[Step, ...]) -> Html:
    """Where a request's time goes in each step; of the ensemble, how long it takes in all."""
    heads = ("step", "requests", "executions", *(f"{part} (ms)" for part in PARTS), "total (ms)")
    rows = [
        [
            f"{step.model} {step.version}",
            number(step.requests),
            number(step.executions),
            *(NONE if step.is_ensemble else number(seconds, MS, ".3f") for seconds in parts_of(step).values()),
            number(step.total_s, MS, ".3f"),
        ]
        for step in steps
    ]
    return table("Mean times of a request", heads, rows)


def of_batch_sizes(step: Step) -> Html:
    """How many executions had which batch size."""
    rows = [[number(one.size), number(one.count), number(one.infer_s, MS, ".3f")] for one in step.batch_sizes]
    caption = f"{step.inferences:,} inputs in {step.executions:,} executions"
    return table(caption, ("inputs", "executions", "mean inference (ms)"), rows)
