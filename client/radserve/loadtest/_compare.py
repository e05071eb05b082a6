"""Whether a change between two reports is real.

Each figure's ratio has a 95 % confidence interval: Welch's, of the logarithms of what the
windows measured; of the runs, where both reports have three of a load or more (``--sweep
8,8,8``). Windows of one run are alike in what a restart may change: repeated runs tell more.
A percentile's interval is never narrower than that of its order statistics. A run ends when its
windows agree, if only by chance, so that the last ones may lie too close together: the spread is
that of all its windows where this is larger.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from radserve.contracts._tensors import Struct
from radserve.errors import InputError
from radserve.loadtest._doubts import doubts, unlike, unlike_plans
from radserve.loadtest._figures import PERCENTILES, Estimate
from radserve.loadtest._statistics import NORMAL, student
from radserve.loadtest._words import load_of, percentile_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from radserve.loadtest._figures import Figures, Window
    from radserve.loadtest._report import Report, Run

_REPEATS = 3
_RATE = "inferences/s"


class Verdict(str, Enum):
    """What a ratio's interval says of the second report."""

    FASTER = "faster"
    SLOWER = "slower"
    UNCLEAR = "no difference shown"
    TOO_LITTLE = "too little measured"


class Change(Struct, frozen=True, kw_only=True):
    """One figure of both reports.

    Attributes:
        figure: ``inferences/s``, or a percentile of the latency in seconds such as ``p99``.
        before: Of the first report.
        after: Of the second one.
        ratio: The second over the first, with its interval.
        verdict: What that says.
    """

    figure: str
    before: float
    after: float
    ratio: Estimate
    verdict: Verdict


class Compared(Struct, frozen=True, kw_only=True):
    """One load of both reports.

    Attributes:
        load: In a few words.
        samples: What the intervals are of: windows, or runs.
        changes: Each figure.
    """

    load: str
    samples: str
    changes: tuple[Change, ...]


class Comparison(Struct, frozen=True, kw_only=True):
    """Two reports.

    Attributes:
        loads: Those that both have.
        warnings: What else than the server's speed is not the same, a line each.
    """

    loads: tuple[Compared, ...]
    warnings: tuple[str, ...]


def compare(before: Report, after: Report) -> Comparison:
    """Compare the loads that two reports have in common, or the only one of each.

    Raises:
        InputError: They have none, or the figures of none can be relied on.
    """
    try:
        return _comparison(before, after)
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        msg = "the reports hold figures that cannot have been measured"
        raise InputError(msg) from error


def _comparison(before: Report, after: Report) -> Comparison:
    groups = (_by_load(before), _by_load(after))
    shared = [load for load in groups[0] if load in groups[1]]
    pairs = [(groups[0][load], groups[1][load]) for load in shared]
    if not pairs and all(len(group) == 1 for group in groups):
        pairs = [(next(iter(groups[0].values())), next(iter(groups[1].values())))]
    if not pairs:
        msg = "the reports have no load in common: compare runs of the same scenario, concurrency or rate, and batch"
        raise InputError(msg)
    warnings = unlike(before, after)
    loads = []
    for first, second in pairs:
        sides = [[run for run in runs if run.figures is not None] for runs in (first, second)]
        for which, runs in (("first", first), ("second", second)):
            warnings += doubts(which, runs)
        warnings += unlike_plans(first[0], second[0])
        if all(sides):
            loads.append(_compared(*sides))
    if not loads:
        msg = f"nothing can be compared: {'; '.join(warnings)}"
        raise InputError(msg)
    return Comparison(loads=tuple(loads), warnings=tuple(dict.fromkeys(warnings)))


def _by_load(report: Report) -> dict[tuple[object, ...], list[Run]]:
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in report.runs:
        plan = run.plan
        load = (plan.scenario, plan.concurrency, plan.rate, plan.inputs_per_request)
        groups.setdefault(load, []).append(run)
    return groups


class _Side(NamedTuple):
    """A figure of one report.

    Attributes:
        value: It.
        samples: What it is the mean of.
        variance: Of the samples' logarithms.
        error: Standard error of its logarithm by order statistics; infinite where n is too small, 0 of a rate.
    """

    value: float
    samples: int
    variance: float
    error: float = 0.0


def _compared(before: Sequence[Run], after: Sequence[Run]) -> Compared:
    of_runs = min(len(before), len(after)) >= _REPEATS
    own = {runs[0].plan.percentile for runs in (before, after)}
    percents = sorted({*PERCENTILES, *(own if len(own) == 1 else ())})
    changes = [_change(_RATE, *(_rate_of(runs, of_runs=of_runs) for runs in (before, after)), more_is_better=True)]
    for percent in percents:
        sides = [_percentile_of(runs, percent, of_runs=of_runs) for runs in (before, after)]
        changes.append(_change(f"p{percent:g}", *sides, more_is_better=False))
    return Compared(load=load_of(before[0].plan), samples="runs" if of_runs else "windows", changes=tuple(changes))


def _change(figure: str, before: _Side, after: _Side, *, more_is_better: bool) -> Change:
    ratio = _ratio(before, after)
    if ratio.low is None or ratio.high is None:
        verdict = Verdict.TOO_LITTLE
    elif ratio.low <= 1 <= ratio.high:
        verdict = Verdict.UNCLEAR
    else:
        verdict = Verdict.FASTER if (ratio.low > 1) == more_is_better else Verdict.SLOWER
    return Change(figure=figure, before=before.value, after=after.value, ratio=ratio, verdict=verdict)


def _ratio(before: _Side, after: _Side) -> Estimate:
    """The ratio of two figures, with Welch's interval (Biometrika 34, 1947) of its logarithm."""
    value = after.value / before.value
    by_ranks = NORMAL * math.hypot(before.error, after.error)
    if min(before.samples, after.samples) < 2 or math.isinf(by_ranks):  # noqa: PLR2004 - one has no spread
        return Estimate(value=value)
    parts = [(side.variance / side.samples, side.samples - 1) for side in (before, after)]
    error_2 = sum(part for part, _ in parts)
    weights = sum(part**2 / freedom for part, freedom in parts)
    freedom = math.floor(error_2**2 / weights) if weights else min(freedom for _, freedom in parts)
    half = max(student(max(1, freedom)) * math.sqrt(error_2), by_ranks)
    return Estimate(value=value, low=value * math.exp(-half), high=value * math.exp(half))


def _variance(samples: Sequence[float]) -> float:
    logs = [math.log(sample) for sample in samples]
    mean = math.fsum(logs) / max(1, len(logs))
    return math.fsum((log - mean) ** 2 for log in logs) / max(1, len(logs) - 1)


def _rate_of(runs: Sequence[Run], *, of_runs: bool) -> _Side:
    figures = [_figures(run) for run in runs]
    value = sum(one.inferences for one in figures) / sum(one.seconds for one in figures)
    if of_runs:
        return _Side(value, len(runs), _variance([one.inferences_per_s.value for one in figures]))
    return _side_of_windows(value, runs, lambda _, window: max(window.inferences, 0.5) / window.seconds)


def _percentile_of(runs: Sequence[Run], percent: float, *, of_runs: bool) -> _Side:
    found = [one.latency_s for run in runs if (one := percentile_of(_figures(run), percent)) is not None]
    errors = [
        math.inf if one.low is None or one.high is None else math.log(one.high / one.low) / (2 * NORMAL)
        for one in found
    ]
    values, error = [one.value for one in found], math.hypot(*errors) / len(errors)
    value = math.exp(math.fsum(map(math.log, values)) / len(values))
    if of_runs:
        return _Side(value, len(runs), _variance(values), error)
    side = _side_of_windows(value, runs, lambda run, window: _told(window, percent, run))
    return side._replace(error=error)


def _side_of_windows(value: float, runs: Sequence[Run], told: Callable[[Run, Window], float | None]) -> _Side:
    everything = [[one for window in run.windows if (one := told(run, window))] for run in runs]
    reported = [one for run in runs for window in run.windows[-_figures(run).windows :] if (one := told(run, window))]
    return _Side(value, len(reported), max(map(_variance, [reported, *everything])))


def _told(window: Window, percent: float, run: Run) -> float | None:
    if percent == run.plan.percentile:
        return window.percentile_s
    return dict(zip(PERCENTILES, (window.p50_s, window.p90_s, window.p95_s, window.p99_s), strict=True))[percent]


def _figures(run: Run) -> Figures:
    if run.figures is None:
        raise AssertionError  # left out before
    return run.figures
