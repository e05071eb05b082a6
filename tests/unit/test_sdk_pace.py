"""Requests are shared where that answers more in a second: callers and a server in virtual time."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.sdk_contracts import tensors

from radserve import RetryPolicy
from radserve._codec import CallOptions, Coalescer, Deadline
from radserve._codec._pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve._codec import Group

CONTRACT = tensors(max_batch_size=64)
ARRAYS: dict[str, Any] = {"X": np.zeros((1, 1, 2), np.float32), "NOTE": np.full((1, 1), "x", object)}
CALL = CallOptions(deadline=Deadline(3600), endpoints=("a:1",), retry=RetryPolicy(), random=lambda: 0.5, request_id="r")


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a request costs.

    Attributes:
        way_s: Of each request, one after the other: the client's and the connection's.
        way_row_s: Of each row in it.
        instances: So many requests are worked on at the same time.
        request_s: Of each request there.
        row_s: Of each row there.
    """

    way_s: float = 0.0003
    way_row_s: float = 0.00005
    instances: int = 2
    request_s: float = 0.0001
    row_s: float


@dataclass
class World:
    """Callers that ask again as soon as they are answered."""

    served: Served
    coalescer: Callable[[Callable[[], float]], Coalescer]
    now: float = 0.0
    answered: int = 0
    groups: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._meeting = self.coalescer(lambda: self.now)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._way_free = 0.0
        self._free = [0.0] * self.served.instances

    def callers(self, count: int) -> None:
        for number in range(count):
            self._at(self.now + 1e-5 * number, self._ask)

    def run(self, seconds: float) -> float:
        """How many are answered in a second."""
        end, before = self.now + seconds, self.answered
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end
        return (self.answered - before) / seconds

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _ask(self) -> None:
        item = self._meeting.item(CONTRACT, ARRAYS, CALL, frozenset())
        assert item is not None
        self._meeting.add(item)
        self._at(self.now, self._send)

    def _send(self) -> None:
        while (group := self._meeting.take()) is not None:
            rows = len(group.items)
            self.groups.append(rows)
            self._way_free = max(self.now, self._way_free) + self.served.way_s + rows * self.served.way_row_s
            begin = max(self._way_free, heapq.heappop(self._free))
            done = begin + self.served.request_s + rows * self.served.row_s
            heapq.heappush(self._free, done)
            self._at(done, lambda group=group: self._end(group))  # type: ignore[misc]
        due_s = self._meeting.due_s()
        if due_s is not None:
            self._at(self.now + due_s + 1e-9, self._send)

    def _end(self, group: Group) -> None:
        self._meeting.finish(group, is_answered=True)
        for _ in group.items:
            self.answered += 1
            self._at(self.now, self._ask)
        self._at(self.now, self._send)


def meeting(most: int = 8, *, shares: bool | None = None) -> Callable[[Callable[[], float]], Coalescer]:
    """A coalescer; one that always shares, or never, to compare with."""

    def make(clock: Callable[[], float]) -> Coalescer:
        made = Coalescer(most, largest_bytes=2**20, clock=clock)
        if shares is not None:
            made._pace = lambda _contract: Fixed(shares)  # type: ignore[assignment, method-assign, return-value]
        return made

    return make


class Fixed:
    def __init__(self, shares: bool) -> None:  # noqa: FBT001 - a stand-in's
        self.shares = shares

    def sent(self, *_given: float, waiting: int) -> int:
        return waiting

    def ended(self, *_given: float, is_answered: bool) -> None: ...


MODELS = {
    "a small network": Served(row_s=0.00005),
    "a large network on a GPU": Served(request_s=0.005, row_s=0.0002),
    "one whose batches gain nothing": Served(row_s=0.01, instances=4),
    "a slow one whose batches gain nothing": Served(row_s=0.3, instances=4),
    "a slow one that runs once": Served(row_s=0.075, instances=1),
}


@pytest.mark.parametrize("callers", [2, 4, 64])
@pytest.mark.parametrize("name", MODELS)
def test_as_much_is_answered_as_in_the_better_way(name: str, callers: int) -> None:
    seconds = 60.0 if "slow" in name else 3.0
    rates = []
    for shares in (None, True, False):
        world = World(MODELS[name], meeting(shares=shares))
        world.callers(callers)
        world.run(seconds / 5)
        rates.append(world.run(seconds))
    chosen, *fixed = rates
    assert chosen > 0.85 * max(fixed)


def test_small_networks_gain_and_slow_ones_lose_nothing() -> None:
    def rate(name: str, **given: Any) -> float:
        world = World(MODELS[name], meeting(**given))
        world.callers(32)
        return world.run(2)

    assert rate("a small network") > 2 * rate("a small network", shares=False)
    assert rate("a small network", most=32) > 3 * rate("a small network", shares=False)
    assert rate("one whose batches gain nothing") > 0.9 * rate("one whose batches gain nothing", shares=False)


def test_what_was_right_for_few_callers_is_tried_again_with_many() -> None:
    world = World(MODELS["a small network"], meeting())
    world.callers(1)
    world.run(20)
    world.callers(63)
    world.run(0.5)
    assert world.run(1) > 2 * 2500


def test_of_a_slow_model_no_more_than_a_quarter_of_a_second_goes_the_wrong_way() -> None:
    world = World(MODELS["a slow one whose batches gain nothing"], meeting())
    world.callers(16)
    world.run(600)
    shared = [rows for rows in world.groups if rows > 1]
    assert len(shared) <= 4
    assert set(world.groups[len(world.groups) // 2 :]) == {1}


def test_what_fails_tells_nothing_of_a_models_pace() -> None:
    pace = Pace()
    for number in range(200):
        sent = pace.sent(8, number, waiting=8)
        pace.ended(sent, 8, number, is_answered=False)
    assert pace.shares


def test_a_single_caller_tells_nothing_either() -> None:
    pace = Pace()
    for number in range(200):
        sent = pace.sent(1, number, waiting=0)
        pace.ended(sent, 1, number + 0.5, is_answered=True)
    assert pace.shares
