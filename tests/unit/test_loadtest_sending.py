"""How workers send and count, in virtual time: what a percentile says is what the server did."""

from __future__ import annotations

import asyncio
import gc
import math
import tracemalloc
from itertools import takewhile
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from support.sdk_contracts import contract
from support.virtual_time import KnownServer, VirtualLoop, run_virtual

from radserve.errors import InferenceFailedError, ServerUnavailableError
from radserve.loadtest import Plan, Scenario, synthetic
from radserve.loadtest._judge import cost_of, figures_of, not_sustained
from radserve.loadtest._messages import AFTER, WARM_UP, Job, Lost, Record, Start
from radserve.loadtest._schedule import poisson
from radserve.loadtest._sending import _Sender
from radserve.loadtest._statistics import rank_of
from radserve.loadtest._tally import Tally
from radserve.loadtest._windows import Merged
from radserve.options import ClientOptions

if TYPE_CHECKING:
    from radserve._transport import AsyncTransport

BEGIN = 1001.0
PERCENTS = (50, 90, 95, 99)
GOLDEN = (math.sqrt(5) - 1) / 2


def lognormal_s(number: int) -> float:
    """Median 20 ms; the quantiles of few are those of the distribution (a Weyl sequence)."""
    return 0.020 * math.exp(0.5 * NormalDist().inv_cdf((0.5 + number * GOLDEN) % 1 or 0.5))


def sent(
    server: KnownServer, seconds: float, tell: Any = None, *, stalls: tuple[float, float] | None = None, **given: Any
) -> list[Any]:
    """What a worker tells that sends for some seconds; nothing where another function is to take it.

    Stalls are times in which it gets no processor: so many seconds, each after so many.
    """
    scenario = Scenario.SERVER if "rate" in given else Scenario.CLOSED_LOOP
    described = contract()
    given = {"warm_up_s": 0, "window_s": seconds, "longest_s": 1e6, **given}
    plan = Plan.of(scenario, described, **given)
    job = Job(
        plan=plan,
        worker=0,
        contract=described,
        options=ClientOptions(endpoints=("a:1",), insecure=True),
        payloads=synthetic(described, 0),
    )
    told: list[Any] = []

    async def stall(every_s: float, length_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            cast("VirtualLoop", asyncio.get_running_loop()).block(length_s)

    async def main() -> None:
        sender = _Sender(job, cast("AsyncTransport", server), tell or told.append)
        stalling = asyncio.create_task(stall(*stalls or (math.inf, 0)))
        running = asyncio.create_task(sender.run(Start(BEGIN, BEGIN + plan.warm_up_s), lambda: 0.0))
        await asyncio.wait({running}, timeout=BEGIN - 1000 + plan.warm_up_s + seconds)
        sender.stop()
        stalling.cancel()
        await running

    run_virtual(main)
    return told


def records(told: list[Any]) -> list[Record]:
    return [one for one in told if isinstance(one, Record)]


def percentiles(record: Record) -> list[float]:
    histogram = Merged.of({0: record}).latencies
    return histogram.at_ranks([rank_of(histogram.n, percent) for percent in PERCENTS])


@pytest.mark.parametrize("load", [{"rate": 100.0}, {"concurrency": 4}])
def test_percentiles_are_those_of_the_servers_distribution(load: dict[str, Any]) -> None:
    first = records(sent(KnownServer(lognormal_s), 50, **load))[0]
    true = [0.020 * math.exp(0.5 * NormalDist().inv_cdf(percent / 100)) for percent in PERCENTS]
    assert first.requests > 4000
    assert percentiles(first) == pytest.approx(true, rel=0.02)


def test_a_stall_counts_for_each_request_that_was_due_in_it() -> None:
    server = KnownServer(lognormal_s, stall=(BEGIN + 20, BEGIN + 22))
    first = records(sent(server, 50, rate=100.0))[0]
    due = list(takewhile(lambda time: time < 50, poisson(100.0, seed=0, worker=0)))
    done = np.array([server.answered_at(number, BEGIN + time) - BEGIN for number, time in enumerate(due)])
    latencies = (done - np.array(due))[done < 50]
    true = [np.sort(latencies)[rank_of(len(latencies), percent) - 1] for percent in PERCENTS]
    assert true[-1] > 1.0
    assert percentiles(first) == pytest.approx(true, rel=0.02)
    assert Merged.of({0: first}).latencies.at_ranks([first.requests])[0] == pytest.approx(latencies.max(), rel=0.02)


def test_a_closed_loop_omits_what_a_stall_would_have_cost() -> None:
    server = KnownServer(lognormal_s, stall=(BEGIN + 20, BEGIN + 22))
    assert percentiles(records(sent(server, 50, concurrency=1))[0])[-1] < 0.1


def test_what_may_not_be_sent_yet_waits_and_its_latency_goes_on() -> None:
    server = KnownServer(lambda _: 0.001, stall=(BEGIN + 1, BEGIN + 9))
    stalled, recovered = records(sent(server, 10, rate=100.0, concurrency=8, window_s=5))[:2]
    assert stalled.due == pytest.approx(500, abs=90)
    assert stalled.sent == stalled.requests + 8
    assert stalled.waiting == stalled.due - stalled.requests
    assert recovered.requests == pytest.approx(recovered.due + stalled.waiting, abs=3)
    assert percentiles(recovered)[-1] > 7
    lags = Merged.of({0: recovered}).lags
    assert lags.at_ranks([lags.n])[0] < 0.002  # the others waited for the server, not for the worker


def test_windows_hold_what_came_in_them_and_the_rest_comes_after() -> None:
    told = records(sent(KnownServer(lambda _: 0.25), 3.1, concurrency=2, window_s=1, warm_up_s=1))
    assert [(one.index, one.is_whole, one.requests) for one in told] == [
        (WARM_UP, True, 6),
        (0, True, 8),
        (1, True, 8),
        (2, True, 8),
        (3, False, 2),
        (AFTER, False, 2),
    ]
    assert sum(one.sent for one in told) == sum(one.requests for one in told) == 34
    assert [one.waiting for one in told] == [2, 2, 2, 2, 2, 0]


def test_windows_without_an_answer_are_told_too() -> None:
    told = records(sent(KnownServer(lambda _: 3.5), 3.0, concurrency=1, window_s=1))
    assert [(one.index, one.requests) for one in told] == [(0, 0), (1, 0), (2, 0), (3, 0), (AFTER, 1)]


@pytest.mark.parametrize(
    ("stalls", "is_valid"),
    [
        pytest.param((0.1, 0.002), True, id="short ones"),
        pytest.param((60.0, 0.05), True, id="rare ones"),
        pytest.param((0.1, 0.03), False, id="often"),
        pytest.param((10.0, 0.4), False, id="long ones"),
        pytest.param((0.0, 0.1), False, id="starving"),
    ],
)
def test_a_run_is_valid_where_the_worker_is_late_by_little(stalls: tuple[float, float], *, is_valid: bool) -> None:
    made = Merged.of({0: records(sent(KnownServer(lognormal_s), 120, rate=50.0, stalls=stalls))[0]})
    plan = Plan(scenario=Scenario.SERVER, rate=50.0, percentile=99.0)
    figures = figures_of(made, [made.window(plan, 0.0)], plan)
    assert figures is not None
    assert figures.requests > 5000
    told = " ".join(not_sustained(figures, cost_of(made, plan)))
    assert ("sent late by the load generator" not in told) is is_valid, told


def test_failures_are_counted_by_type_and_are_no_answers() -> None:
    def fails(number: int) -> Exception | None:
        return InferenceFailedError(f"failure {number}") if number % 10 == 3 else None

    first = records(sent(KnownServer(lambda _: 0.01, fails=fails), 1.005, concurrency=1))[0]
    assert (first.sent, first.requests, first.failed) == (101, 90, 10)
    assert [(one.type, one.count, one.message) for one in first.failures] == [("InferenceFailedError", 10, "failure 3")]


def test_a_server_that_is_gone_is_told_after_a_second_and_not_hammered() -> None:
    server = KnownServer(lambda _: 0.01, fails=lambda n: ServerUnavailableError("gone") if n >= 100 else None)
    told = sent(server, 60, concurrency=1)
    (lost,) = (one for one in told if isinstance(one, Lost))
    assert lost.message == "gone"
    assert lost.since == pytest.approx(BEGIN + 1.01, abs=0.01)
    assert server.count < 130


def test_a_server_that_comes_back_within_a_second_is_not_lost() -> None:
    def fails(number: int) -> Exception | None:
        return ServerUnavailableError("gone") if 100 <= number < 110 else None

    told = sent(KnownServer(lambda _: 0.01, fails=fails), 10, concurrency=1)
    assert not [one for one in told if isinstance(one, Lost)]
    assert records(told)[0].failed == 10


def test_an_answer_belongs_to_the_window_that_it_came_in_though_the_event_loop_was_late() -> None:
    told: list[Record] = []
    tally = Tally(Start(BEGIN, BEGIN), 1.0, told.append, due_until=None, busy_s=lambda: 0.0)
    for came in (0.5, 0.9, 1.1, 3.2):
        tally.answered(BEGIN + came, 0.1)
    tally.end(BEGIN + 3.5)
    assert [(one.index, one.requests) for one in told] == [(0, 2), (1, 1), (2, 0), (3, 1)]
    assert [one.seconds for one in told] == pytest.approx([1, 1, 1, 0.5])


@pytest.mark.full
def test_an_hour_takes_no_more_memory_than_ten_minutes() -> None:
    held: dict[int, int] = {}

    def note(record: Record) -> None:
        gc.collect()
        held[record.index] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        sent(KnownServer(lognormal_s), 3600, note, rate=20.0, window_s=600)
    finally:
        tracemalloc.stop()
    assert held[5] - held[0] < 2**14
