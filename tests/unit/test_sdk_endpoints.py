"""Which of several servers a call goes to, by a clock of the test's own."""

from __future__ import annotations

import pytest

from radserve._transport._endpoints import Pool
from radserve.errors import (
    DeadlineExceededError,
    Retry,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
)

A, B, C = "a:1", "b:1", "c:1"
LOST = ServerUnavailableError("lost", retry=Retry.ONCE_ELSEWHERE)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, *urls: str) -> Pool:
    return Pool(urls, clock=clock, chance=lambda: 0.0)


def ask(pool: Pool, error: ServerError | None = None, avoid: frozenset[str] = frozenset()) -> str:
    """One call that is over at once; where it went."""
    endpoint = pool.pick(avoid)
    pool.report(endpoint, error)
    return endpoint.url


def fail(pool: Pool, url: str, others: frozenset[str], error: ServerError = LOST) -> None:
    assert ask(pool, error, others) == url


def test_the_server_with_the_fewest_calls_in_flight_is_asked(clock: Clock) -> None:
    pool = made(clock, A, B, C)
    in_flight = [pool.pick() for _ in range(9)]
    assert sorted(endpoint.url for endpoint in in_flight) == sorted([A, B, C] * 3)
    pool.report(next(endpoint for endpoint in in_flight if endpoint.url == B), None)
    assert pool.pick().url == B


def test_idle_servers_take_turns(clock: Clock) -> None:
    pool = made(clock, A, B, C)
    assert [ask(pool) for _ in range(6)] == [A, B, C, A, B, C]


def test_servers_to_avoid_are_asked_only_where_there_is_no_other(clock: Clock) -> None:
    pool = made(clock, A, B)
    assert {ask(pool, avoid=frozenset({A})) for _ in range(5)} == {B}
    assert {ask(pool, avoid=frozenset({A, B})) for _ in range(5)} == {A, B}


def test_a_server_that_failed_twice_is_left_out_ever_longer(clock: Clock) -> None:
    pool = made(clock, A, B)
    fail(pool, A, frozenset({B}))
    assert A in {ask(pool) for _ in range(4)}  # one failure may be chance; the answer clears it
    for out_s in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        for _ in range(2 if out_s == 1.0 else 1):
            fail(pool, A, frozenset({B}))
        clock.now += out_s - 0.01
        assert {ask(pool) for _ in range(4)} == {B}
        clock.now += 0.02
        endpoint = pool.pick(frozenset({B}))
        assert (endpoint.url, endpoint.is_suspect) == (A, True)
        pool.drop(endpoint)


def test_the_time_out_is_shortened_at_random(clock: Clock) -> None:
    pool = Pool((A, B), clock=clock, chance=lambda: 1.0)
    for _ in range(2):
        fail(pool, A, frozenset({B}))
    clock.now += 0.51
    assert A in {ask(pool) for _ in range(2)}


def test_an_answer_ends_the_suspicion(clock: Clock) -> None:
    pool = made(clock, A, B)
    for _ in range(2):
        fail(pool, A, frozenset({B}))
    clock.now += 1.1
    assert ask(pool, avoid=frozenset({B})) == A
    endpoint = pool.pick(frozenset({B}))
    assert (endpoint.failures, endpoint.is_suspect) == (0, False)


def test_one_call_at_a_time_tries_a_suspect_server(clock: Clock) -> None:
    pool = made(clock, A, B)
    for _ in range(2):
        fail(pool, A, frozenset({B}))
    clock.now += 1.1
    assert sorted(pool.pick().url for _ in range(5)) == [A, B, B, B, B]


def test_one_server_always_stays_in(clock: Clock) -> None:
    pool = made(clock, A, B)
    for url, other in ((A, B), (B, A)):
        for _ in range(5):
            fail(pool, url, frozenset({other}))
    assert {ask(pool) for _ in range(4)} == {B}
    alone = made(clock, A)
    for _ in range(5):
        fail(alone, A, frozenset())
    assert alone.pick().is_suspect is False


@pytest.mark.parametrize(
    "error",
    [ServerOverloadedError("full", retry=Retry.BACK_OFF), ServerError("bad input")],
    ids=["overloaded", "rejected"],
)
def test_what_no_other_server_would_do_better_counts_against_none(clock: Clock, error: ServerError) -> None:
    pool = made(clock, A, B)
    for _ in range(5):
        fail(pool, A, frozenset({B}), error)
    assert {ask(pool) for _ in range(4)} == {A, B}


def test_a_deadline_makes_suspect_but_leaves_none_out(clock: Clock) -> None:
    pool = made(clock, A, B)
    fail(pool, A, frozenset({B}), DeadlineExceededError("late"))
    in_flight = [pool.pick(), pool.pick()]
    assert {(endpoint.url, endpoint.is_suspect) for endpoint in in_flight} == {(A, True), (B, False)}
