"""The search for the highest rate that a server stands, on simulated queues; and sweeps."""

from __future__ import annotations

import asyncio
import heapq
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace
from support.loads import PLAN, invalid_run, run_of

from radserve.errors import InputError
from radserve.loadtest import Ending, Goal, Plan, RateSearch, Run, Scenario, climb, concurrencies, sweep
from radserve.loadtest._judge import figures_of
from radserve.loadtest._windows import Merged

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from radserve.loadtest import Search

GOAL = Goal(percent=99.0, latency_s=0.05)


def queue(rate: float, *, servers: int, service_s: float, seconds: float, seed: int) -> tuple[NDArray[np.float64], int]:
    """Latencies in an M/D/c queue of those that are answered within the time, and how many were due."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, round(2 * rate * seconds)))
    due = due[due <= seconds]
    free = [0.0] * servers
    ends = []
    for arrival in due:
        end = max(arrival, heapq.heappop(free)) + service_s
        heapq.heappush(free, end)
        ends.append(end)
    done = np.asarray(ends)
    answered = done <= seconds
    return (done - due)[answered], len(due)


def measured(rate: float, *, servers: int, service_s: float, seconds: float = 120.0, seed: int = 0) -> Run:
    plan = Plan(scenario=Scenario.SERVER, rate=rate, concurrency=1024, percentile=99.0)
    latencies, due = queue(rate, servers=servers, service_s=service_s, seconds=seconds, seed=seed)
    merged = Merged()
    merged.seconds, merged.requests, merged.due = seconds, len(latencies), due
    merged.latencies.record(latencies.tolist())
    figures = figures_of(merged, [replace(run_of().windows[0], seconds=seconds)] * 3, plan)
    return replace(base(), plan=plan, figures=figures, windows=base().windows[-3:])


@cache
def base() -> Run:
    return run_of()


def found(search: RateSearch, measure: Callable[[float], Run]) -> tuple[Search, list[float]]:
    async def one(rate: float) -> Run:
        return measure(rate)

    async def all_of_it() -> list[float]:
        return [run.plan.rate or 0.0 async for run in climb(search, one)]

    tried = asyncio.run(all_of_it())
    return search.answer(), tried


def limited(limit: float, why: Callable[[Run], Run]) -> Callable[[float], Run]:
    """A measurement that meets the goal up to a rate, and is something else above."""

    def measure(rate: float) -> Run:
        run = replace(base(), plan=Plan(scenario=Scenario.SERVER, rate=rate, concurrency=1024))
        return run if rate <= limit else why(run)

    return measure


def slow(run: Run) -> Run:
    return replace(run_of(latency_s=0.2), plan=run.plan)


@pytest.mark.parametrize(("servers", "service_s"), [(1, 0.01), (4, 0.02)])
@pytest.mark.parametrize("start", [3.0, 60.0, 500.0])
def test_the_highest_rate_of_a_queue_is_found(servers: int, service_s: float, start: float) -> None:
    answer, tried = found(RateSearch(GOAL, start), lambda rate: measured(rate, servers=servers, service_s=service_s))
    assert answer.rate is not None
    below, above = (
        measured(share * answer.rate, servers=servers, service_s=service_s, seconds=400.0, seed=1)
        for share in (0.9, 1.1)
    )
    assert GOAL.latency_of(below) <= GOAL.latency_s < GOAL.latency_of(above)
    assert "p99 was" in answer.limit
    assert len(tried) <= 18


@pytest.mark.parametrize("limit", [0.7, 37.0, 1234.0])
@pytest.mark.parametrize("start", [0.5, 40.0, 600.0])
def test_the_answer_is_within_five_percent_below_the_limit(limit: float, start: float) -> None:
    answer, tried = found(RateSearch(GOAL, start), limited(limit, slow))
    assert answer.rate is not None
    assert limit / 1.06 <= answer.rate <= limit
    assert answer.rate in tried
    assert sorted(rate for rate in {*tried} if tried.count(rate) > 1) == [min(rate for rate in tried if rate > limit)]


def test_one_bad_moment_is_not_taken_for_the_limit() -> None:
    moments = iter([False, False, True, False, False, True])

    def measure(rate: float) -> Run:
        run = limited(300, slow)(rate)
        return slow(run) if next(moments, False) else run

    answer, _ = found(RateSearch(GOAL, 10), measure)
    assert answer.rate == pytest.approx(300, rel=0.06)


def test_a_load_generator_that_was_the_limit_is_named() -> None:
    answer, _ = found(RateSearch(GOAL, 10), limited(300, lambda run: replace(invalid_run(), plan=run.plan)))
    assert answer.rate == pytest.approx(300, rel=0.06)
    assert "the load generator, not the server, was the limit: a worker's event loop" in answer.limit


def test_a_server_that_is_never_fast_enough_has_no_rate() -> None:
    answer, tried = found(RateSearch(GOAL, 10), limited(0, slow))
    assert answer.rate is None
    assert len(tried) == 11
    assert "p99 was" in answer.limit


def test_a_server_without_a_limit_ends_the_search() -> None:
    answer, tried = found(RateSearch(GOAL, 1e5), limited(1e9, slow))
    assert answer.rate == 1e6
    assert answer.limit == "no higher rate was tried"
    assert len(tried) == 5


@pytest.mark.parametrize("ending", [Ending.INTERRUPTED, Ending.SERVER_LOST, Ending.WORKER_LOST])
def test_a_run_that_is_over_before_its_end_ends_the_search_with_what_is_known(ending: Ending) -> None:
    def measure(rate: float) -> Run:
        run = limited(1e9, slow)(rate)
        return run if rate < 70 else replace(run, ending=ending, notes=("it is gone",))

    answer, tried = found(RateSearch(GOAL, 10), measure)
    assert answer.rate == 40
    assert answer.limit == "the search ended at 80 requests/s: it is gone"
    assert tried == [10, 20, 40, 80]


def test_a_search_that_is_cut_short_says_why() -> None:
    search = RateSearch(GOAL, 10.0)
    search.tell(limited(100, slow)(10.0))
    answer = search.answer("no server answers")
    assert (answer.rate, answer.limit) == (10, "the search was cut short: no server answers")


def test_failures_count_as_answers_that_never_came() -> None:
    run = run_of(latency_s=0.02)
    plain = GOAL.latency_of(run)
    some = replace(run, windows=tuple(replace(window, failed=2) for window in run.windows))
    many = replace(run, windows=tuple(replace(window, failed=4) for window in run.windows))
    assert run.figures is not None
    assert plain == run.figures.percentiles[-1].latency_s.value
    assert plain < GOAL.latency_of(some) < float("inf")
    assert GOAL.latency_of(many) == float("inf")


@pytest.mark.parametrize(
    ("text", "percent", "latency_s"),
    [("p99=50ms", 99, 0.05), ("p99.9=1.5s", 99.9, 1.5), ("p50<=250us", 50, 0.00025), (" p95<2s ", 95, 2)],
)
def test_goals_are_read(text: str, percent: float, latency_s: float) -> None:
    goal = Goal.of(text)
    assert goal.percent == percent
    assert goal.latency_s == pytest.approx(latency_s)


@pytest.mark.parametrize("text", ["", "50ms", "p99", "p99=50", "p0=1s", "p100=1s", "p99=0ms", "p99=-1ms", "p99=nans"])
def test_what_is_no_goal_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="p99=50ms"):
        Goal.of(text)


@pytest.mark.parametrize(("text", "numbers"), [("1,2,4", (1, 2, 4)), (" 8 , 8,8", (8, 8, 8)), ("3", (3,))])
def test_lists_of_concurrencies_are_read(text: str, numbers: tuple[int, ...]) -> None:
    assert concurrencies(text) == numbers


@pytest.mark.parametrize("text", ["", "1,,2", "0", "-1", "1;2", "one", "1.5", "\u0663"])
def test_what_is_no_list_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="1,2,4,8"):
        concurrencies(text)


def test_a_sweep_ends_with_a_run_that_is_partial() -> None:
    async def measure(plan: Plan) -> Run:
        return replace(base(), plan=plan, ending=Ending.INTERRUPTED if plan.concurrency == 4 else Ending.STABLE)

    async def swept() -> list[int]:
        plans = [replace(PLAN, concurrency=number) for number in (2, 4, 8)]
        return [run.plan.concurrency async for run in sweep(plans, measure)]

    assert asyncio.run(swept()) == [2, 4]


def test_a_rate_too_low_for_any_request_tells_nothing_new() -> None:
    def run_at(rate: float) -> Run:
        slow = measured(rate, servers=8, service_s=0.1)
        return slow if rate > 1 else replace(slow, figures=None, errors=())

    answer, tried = found(RateSearch(Goal(percent=99.0, latency_s=0.001), 4.0), run_at)
    assert tried == [4, 2, 1]
    assert answer.rate is None
    assert "at 2 requests/s p99 was" in answer.limit
