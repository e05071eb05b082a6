"""A report's parts in words and numbers, the same in every form that it is shown in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.loadtest._plan import Scenario
from radserve.loadtest._report import Ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve.loadtest._figures import Figures, Percentile, Step
    from radserve.loadtest._plan import Plan
    from radserve.loadtest._report import Run

PARTS = ("queue", "input", "inference", "output", "other")  # of the time that a request spends in a step
_LONGEST = 40
_PARTIAL = {
    Ending.INTERRUPTED: "it was interrupted",
    Ending.SERVER_LOST: "the server stopped answering",
    Ending.WORKER_LOST: "a process that sent died",
}


def printable(name: str) -> str:
    """A name without signs that steer a terminal or a page."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def short(name: str) -> str:
    """A name that fits into a picture."""
    name = printable(name)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def load_of(plan: Plan) -> str:
    """The load in a few words, such as ``8 in flight``."""
    if plan.rate is not None:
        told = f"{plan.rate:g} requests/s"
    elif plan.scenario in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM):
        told = plan.scenario.value
    else:
        told = f"{plan.concurrency} in flight"
    return told if plan.inputs_per_request == 1 else f"{told} of {plan.inputs_per_request} inputs"


def asked(plan: Plan) -> str:
    """What was asked, in a sentence."""
    inputs = "1 input" if plan.inputs_per_request == 1 else f"{plan.inputs_per_request} inputs"
    in_flight = "1 request" if plan.concurrency == 1 else f"{plan.concurrency} requests"
    how = {
        Scenario.SINGLE_STREAM: "one request at a time, the next one when the answer is there",
        Scenario.MULTI_STREAM: "one request of several inputs at a time",
        Scenario.SERVER: f"{plan.rate or 0:g} requests/s at random times, whether or not earlier ones are answered",
        Scenario.OFFLINE: f"as much as the server takes, {in_flight} in flight",
        Scenario.CLOSED_LOOP: f"{in_flight} in flight",
    }[plan.scenario]
    until = (
        f"for {plan.duration_s:g} s"
        if plan.duration_s is not None
        else f"until {plan.windows} windows of {plan.window_s:g} s agree within {plan.tolerance:.0%} in throughput"
        f"{'' if plan.scenario is Scenario.OFFLINE else f' and p{plan.percentile:g}'}, {plan.longest_s:g} s at most"
    )
    sent_by = "1 process" if plan.workers == 1 else f"{plan.workers} processes"
    return (
        f"{plan.scenario.value}: {how}; {inputs} in each; sent by {sent_by};"
        f" after {plan.warm_up_s:g} s of warm-up, measured {until}"
    )


def state_of(run: Run) -> str:
    """Whether a run's figures can be relied on: valid, partial, overloaded, invalid or nothing."""
    if run.invalid:
        return "invalid"
    if run.figures is None:
        return "nothing measured"
    if run.is_partial:
        return "partial"
    return "valid" if run.is_reached else "overloaded"


def verdict_of(run: Run) -> str:
    """The same in a sentence."""
    told = {
        "invalid": "Invalid: the load generator, not the server, was the limit, so that no figures are given.",
        "nothing measured": "Nothing was measured: no request was answered well in the time measured.",
        "partial": f"Partial: {_PARTIAL.get(run.ending, '')}; the figures are of what was measured until then.",
        "overloaded": "Overloaded: the server did not keep up with the offered rate.",
    }
    stable = "the last windows agree" if run.is_stable else "but the windows do not agree: the figures are less sure"
    return told.get(state_of(run)) or f"Valid: the load generator kept up, {stable}."


def percentile_of(figures: Figures, percent: float) -> Percentile | None:
    """One of the percentiles that were measured."""
    return next((one for one in figures.percentiles if one.percent == percent), None)


def server_share_of(run: Run) -> str | None:
    """How much of the mean latency the server had; None where it does not tell."""
    whole = next((step for step in run.steps if step.is_ensemble), None)
    if whole is None or run.figures is None or whole.total_s > run.figures.mean_s:
        return None  # or it tells of other requests, as where windows are shorter than answers
    mean, server = (f"{1e3 * seconds:.4g} ms" for seconds in (run.figures.mean_s, whole.total_s))
    return f"Of the mean latency of {mean} the server had {server}; the rest is the way between, and the client."


def parts_of(step: Step) -> dict[str, float]:
    """Where a request's time goes in a step, in seconds: a part for each of Triton's, and what they leave."""
    parts = (step.queue_s, step.compute_input_s, step.compute_infer_s, step.compute_output_s)
    return dict(zip(PARTS, (*parts, max(0.0, step.total_s - sum(parts))), strict=True))


def composing(steps: Sequence[Step]) -> list[Step]:
    """The steps without the ensemble that they make up; a model that is none is its own step."""
    return [step for step in steps if not step.is_ensemble] or list(steps)
