"""A report as one HTML file, for readers: what was asked, whether it can be relied on, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.loadtest import _plots
from radserve.loadtest import _tables as tables
from radserve.loadtest._judge import FAILED
from radserve.loadtest._page import MS, Html, beside, element, html, number, page
from radserve.loadtest._words import asked, composing, load_of, server_share_of, state_of, verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve.loadtest._figures import Step
    from radserve.loadtest._report import Report, Run, Search

_SEVERAL = 2


def dump_html(report: Report) -> str:
    """Write a report as a page that needs nothing else.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    title = f"Load test of {report.model}"
    return page(title, element("main", element("h1", title), _head(report), *_summary(report), *_runs(report)), _foot())


def _head(report: Report) -> Html:
    sent, machine = report.inputs, report.machine
    plans = dict.fromkeys(asked(run.plan) for run in report.runs)
    kind = "made of the model's contract" if sent.is_synthetic else f"of {sent.files} files"
    facts = {
        "Model": f"{report.model}, version {report.version} (contract {report.contract_sha256[:12]})",
        "Servers": ", ".join(report.servers),
        "When": report.began,
        "Load made on": f"{machine.processor}, {machine.processors} processors, {machine.system},"
        f" Python {machine.python}, radserve {machine.radserve}",
        "Inputs": f"{sent.count} {kind}; {sent.bytes_per_request / 1000:.4g} kB in each request on average",
    }
    terms = [element("dt", name) + element("dd", fact) for name, fact in facts.items()]
    terms.append(element("dt", "Asked") + "".join(element("dd", plan) for plan in list(plans)[:1]))
    if len(plans) > 1:
        terms.append(element("dt", "") + element("dd", f"and {len(plans) - 1} other loads, see the table"))
    refused = tables.of_errors("Files that the model does not take", "file", sent.refused)
    return Html(element("dl", Html("".join(terms))) + refused)


def _summary(report: Report) -> Iterator[str]:
    yield element("h2", "Result")
    if report.search is not None:
        yield _answer(report.search, is_partial=report.is_partial)
    if report.cut_short is not None:
        yield element("p", f"Partial: no further load could be measured: {report.cut_short}", of="verdict fair")
    by_state: dict[str, list[int]] = {}
    for place, run in enumerate(report.runs, 1):
        by_state.setdefault(verdict_of(run), []).append(place)
    for verdict, places in by_state.items():
        run = report.runs[places[0] - 1]
        which = "" if len(report.runs) == 1 else f"Run {', '.join(map(str, places))}: "
        yield element("p", which + verdict, of=f"verdict {_grade(run)}")
    yield tables.of_runs(report)
    measured = [run for run in report.runs if run.figures is not None]
    if len(measured) >= _SEVERAL:
        yield element("h3", "Throughput against latency")
        yield element("figure", Html(_plots.throughput_latency("curve", measured, report.search)))
        rows = [
            (f"{load_of(run.plan)}{_of_step(step, run)}", step) for run in measured for step in composing(run.steps)
        ]
        if rows:
            yield element("h3", "Time in the server by load")
            yield element("figure", Html(_plots.steps("loads", rows)))


def _grade(run: Run) -> str:
    if state_of(run) == "valid":
        return "good" if run.is_stable and run.totals.failed <= FAILED * run.totals.sent else "fair"
    return "fair" if state_of(run) == "partial" else "bad"


def _of_step(step: Step, run: Run) -> str:
    return f": {step.model}" if len(composing(run.steps)) > 1 else ""


def _answer(search: Search, *, is_partial: bool) -> Html:
    goal = f"p{search.percent:g} of at most {search.latency_s * MS:g} ms"
    if search.rate is None:
        return element("p", f"No rate was found that meets {goal}: {search.limit}.", of="verdict bad")
    which = "Highest rate so far" if is_partial else "Highest rate"
    found = Html(f"{which} that meets {html(goal)}: {number(search.rate)} requests/s; {html(search.limit)}.")
    return element("p", found, of="verdict fair" if is_partial else "verdict good")


def _runs(report: Report) -> Iterator[str]:
    for place, run in enumerate(report.runs, 1):
        yield element("section", *_run(f"run{place}", f"Run {place}: {load_of(run.plan)}", run))


def _run(key: str, title: str, run: Run) -> Iterator[str]:
    yield element("h2", title)
    yield element("p", verdict_of(run), of=f"verdict {_grade(run)}")
    told = [*run.invalid, *run.notes]
    if told:
        yield element("ul", *(element("li", line) for line in told))
    yield _client(run)
    yield tables.of_errors("Requests that failed, warm-up included", "request", run.errors)
    if run.windows:
        yield element("h3", "Over time")
        if run.invalid:
            yield element("p", "To see what happened; no measure of the server.")
        yield element("figure", Html(_plots.over_time(f"{key}-time", run)))
        yield tables.of_windows(run)
    if run.figures is not None:
        yield element("h3", "Latency")
        yield beside(_plots.histogram(f"{key}-histogram", run.figures), tables.of_percentiles(run.figures))
    if run.steps and not run.invalid:
        yield from _server(key, run)


def _client(run: Run) -> Html:
    cost, totals = run.client, run.totals
    shares = ", ".join(f"{seconds:.2f}" for seconds in cost.cpu_s)
    late = "" if cost.lag_p99_s is None else f"; requests were sent late by {cost.lag_p99_s * MS:.3g} ms (p99)"
    late += f", which is up to {cost.lag_share:.0%} of a percentile of the latency" if cost.lag_share else ""
    return element(
        "p",
        f"In all, warm-up included: {totals.due:,} requests due, {totals.sent:,} sent, {totals.requests:,} answered"
        f" well, {totals.failed:,} failed. The client's {cost.workers} process{'es' * (cost.workers > 1)} took"
        f" {shares} s of processor time, {cost.cpu:.2f} processors together; the busiest event loop was at work"
        f" {cost.busy:.0%} of the time{late}.",
    )


def _server(key: str, run: Run) -> Iterator[str]:
    steps = composing(run.steps)
    yield element("h3", "In the server, by Triton's statistics")
    if told := server_share_of(run):
        yield element("p", told)
    yield element("figure", Html(_plots.steps(f"{key}-steps", [(step.model, step) for step in steps])))
    yield tables.of_steps(run.steps)
    for place, step in enumerate(steps):
        if step.batch_sizes:
            yield element("h3", f"Batch sizes of {step.model}")
            yield beside(_plots.batch_sizes(f"{key}-batch{place}", step), tables.of_batch_sizes(step))


def _foot() -> Html:
    return element(
        "footer",
        element(
            "p",
            "Latency is the caller's: from when a request was due (open loop) or sent (closed loop) to its whole"
            " answer; failures count in no figure but their own. p99 is the latency that 99 % of the answers did not"
            " exceed. Intervals: 95 %; of throughput Student's over the windows; of percentiles by order statistics,"
            " which assume that answers are independent of each other.",
            of="quiet",
        ),
    )
