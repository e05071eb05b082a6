"""Whether two load tests differ: intervals that hold what they say, and what makes a comparison doubtful."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.loads import PLAN, invalid_run, report_of, run_of

from radserve.errors import InputError
from radserve.loadtest import Ending, Report, Run, Verdict, compare
from radserve.loadtest._figures import PERCENTILES, Estimate, Percentile, Totals
from radserve.loadtest._judge import is_stable
from radserve.loadtest._statistics import rank_interval, rank_of

if TYPE_CHECKING:
    from radserve.loadtest import Window
    from radserve.loadtest._compare import Change

REPEATS = 300
MOST_WINDOWS = 12
BASE = run_of()
ranks = cache(rank_interval)


def simulated(rng: np.random.Generator, *, speed: float, noise: float) -> Run:
    """A run as the engine makes one: windows until three agree, of a server whose speed varies between them."""
    drawn: list[Any] = []
    windows: list[Window] = []
    while len(windows) < MOST_WINDOWS and not is_stable(windows, PLAN):
        now = speed * float(np.exp(rng.normal(0, noise)))
        n = round(400 * now)
        drawn.append(rng.lognormal(np.log(0.02 / now), 0.4, n))
        p50, p90, p95, p99 = (float(value) for value in np.quantile(drawn[-1], [one / 100 for one in PERCENTILES]))
        counts = {"requests": n, "inferences": n, "due": n}
        tails = {"p50_s": p50, "p90_s": p90, "p95_s": p95, "p99_s": p99, "percentile_s": p95}
        windows.append(replace(BASE.windows[0], begin_s=5.0 * len(windows), **counts, **tails))
    latencies = np.sort(np.concatenate(drawn[-3:]))
    n, seconds = len(latencies), 5.0 * len(drawn[-3:])
    rate = Estimate(value=n / seconds)
    figures = replace(
        BASE.figures,  # type: ignore[type-var] # it has some
        seconds=seconds,
        windows=len(drawn[-3:]),
        requests=n,
        inferences=n,
        requests_per_s=rate,
        inferences_per_s=rate,
        percentiles=tuple(percentile(latencies, percent) for percent in PERCENTILES),
    )
    return replace(BASE, figures=figures, windows=tuple(windows))


def percentile(latencies: Any, percent: float) -> Percentile:
    n = len(latencies)
    low, high = ranks(n, percent)
    value, *ends = (None if rank is None else float(latencies[rank - 1]) for rank in (rank_of(n, percent), low, high))
    assert value is not None
    return Percentile(percent=percent, n=n, latency_s=Estimate(value=value, low=ends[0], high=ends[1]))


def changes(before: Report, after: Report) -> dict[str, Change]:
    (load,) = compare(before, after).loads
    return {change.figure: change for change in load.changes}


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.10])
@pytest.mark.parametrize("speed", [1.0, 1.25])
def test_the_intervals_hold_the_true_ratio_as_often_as_they_say(noise: float, speed: float) -> None:
    rng = np.random.default_rng(7)
    held = dict.fromkeys(("inferences/s", *(f"p{percent:g}" for percent in PERCENTILES)), 0)
    for _ in range(REPEATS):
        before, after = (report_of([simulated(rng, speed=one, noise=noise)]) for one in (1.0, speed))
        for name, change in changes(before, after).items():
            true = speed if name == "inferences/s" else 1 / speed
            assert change.ratio.low is not None
            assert change.ratio.high is not None
            held[name] += change.ratio.low <= true <= change.ratio.high
            if speed == 1.0 and change.verdict is not Verdict.UNCLEAR:
                assert not change.ratio.low <= 1 <= change.ratio.high
    # Three windows are few, so that Welch's intervals and those of ranks are rather too wide than too narrow.
    assert min(held.values()) >= 0.93 * REPEATS, held


def test_a_change_far_above_the_noise_is_found() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(40):
        before, after = (report_of([simulated(rng, speed=speed, noise=0.02)]) for speed in (1.0, 1.3))
        told = changes(before, after)
        found += told["inferences/s"].verdict is Verdict.FASTER and told["p50"].verdict is Verdict.FASTER
        back = changes(after, before)
        assert back["inferences/s"].verdict is not Verdict.FASTER
        assert back["inferences/s"].ratio.value == pytest.approx(1 / told["inferences/s"].ratio.value)
    assert found >= 36


def test_a_lower_latency_is_faster_and_a_lower_rate_slower() -> None:
    told = changes(
        report_of([run_of(requests=400, latency_s=0.02)]), report_of([run_of(requests=200, latency_s=0.01, seed=1)])
    )
    assert told["inferences/s"].verdict is Verdict.SLOWER
    assert told["p50"].verdict is Verdict.FASTER
    assert told["p50"].ratio.value == pytest.approx(0.5, rel=0.1)


def test_one_window_is_too_little() -> None:
    short = report_of([run_of(replace(PLAN, windows=1), windows=1)])
    assert {change.verdict for change in changes(short, short).values()} == {Verdict.TOO_LITTLE}


def test_so_few_answers_have_no_p99() -> None:
    few = report_of([run_of(requests=60)])
    assert changes(few, few)["p99"].verdict is Verdict.TOO_LITTLE
    assert changes(few, few)["p50"].verdict is Verdict.UNCLEAR


def test_repeated_runs_are_the_samples_so_that_what_a_restart_changes_counts() -> None:
    def repeated(rates: tuple[int, ...]) -> Report:
        return report_of([run_of(requests=rate, seed=rate) for rate in rates])

    once = changes(repeated((300,)), repeated((330,)))
    often = changes(repeated((300, 360, 250)), repeated((330, 270, 390)))
    assert once["inferences/s"].verdict is Verdict.FASTER
    assert often["inferences/s"].verdict is Verdict.UNCLEAR
    assert compare(repeated((300, 360, 250)), repeated((330, 270, 390))).loads[0].samples == "runs"


def test_the_loads_that_both_have_are_compared() -> None:
    def swept(*loads: int) -> Report:
        return report_of([run_of(replace(PLAN, concurrency=load)) for load in loads])

    told = compare(swept(2, 4, 8), swept(4, 8, 16))
    assert [one.load for one in told.loads] == ["4 in flight", "8 in flight"]
    with pytest.raises(InputError, match="no load in common"):
        compare(swept(2, 4), swept(8, 16))


def test_invalid_runs_are_refused_and_said_so_where_others_are_left() -> None:
    with pytest.raises(InputError, match=r"nothing can be compared.*invalid: a worker's event loop"):
        compare(report_of(), report_of([invalid_run()]))
    two = replace(PLAN, concurrency=2)
    told = compare(report_of([run_of(), run_of(two)]), report_of([run_of(), invalid_run(two)]))
    assert [one.load for one in told.loads] == ["8 in flight"]
    assert any("second report's run with 2 in flight is left out" in line for line in told.warnings)


@pytest.mark.parametrize(
    ("other", "warning"),
    [
        (report_of(model="chest_ct"), "model is not the same: chest_xray 3, then chest_ct 3"),
        (report_of(contract_sha256="f" * 64), "contract is not the same: 0123456789ab, then ffffffffffff"),
        (
            report_of(machine=replace(report_of().machine, processors=64)),
            "machine: processors is not the same: 2, then 64",
        ),
        (report_of(inputs=replace(report_of().inputs, is_synthetic=False)), "inputs: is synthetic is not the same"),
        (report_of([run_of(replace(PLAN, concurrency=9))]), "plan: concurrency is not the same: 8, then 9"),
        (report_of([run_of(ending=Ending.INTERRUPTED)]), "the second report's run with 8 in flight is partial"),
        (report_of([run_of(is_stable=False)]), "is less sure: its windows do not agree"),
        (report_of([run_of(totals=Totals(due=99, sent=99, requests=90, failed=9))]), "has 9 failures of 99"),
    ],
)
def test_what_else_differs_is_told(other: Report, warning: str) -> None:
    first = report_of([run_of(totals=Totals(due=99, sent=99, requests=99))])
    assert any(warning in line for line in compare(first, other).warnings)
    assert compare(first, first).warnings == ()


def test_figures_that_nobody_measured_are_refused() -> None:
    (run,) = report_of().runs
    assert run.figures is not None
    zero = report_of([replace(run, figures=replace(run.figures, inferences=0))])
    with pytest.raises(InputError, match="cannot have been measured"):
        compare(zero, zero)
