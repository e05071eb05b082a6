"""Which waiting inferences go into one request: every decision, and no I/O.

Small requests cost a server, and Python, more than the inference in them. So
calls of one client that wait at the same time are sent as one request: at once
where few are under way, else as soon as one of these is answered, as many wait
as go into one, or the first has waited for 5 ms. A call that comes alone is
sent alone and at once. All are, of a model that answers no more in a second if
its requests are shared: see ``Pace``.

Never in one request: inputs for several contracts or of several shapes, calls
of several priorities, those with an id that the caller chose, and calls that
would suffer from others: urgent ones, and those with little time or with a
limit of their own in the server's queue.
"""

from __future__ import annotations

import time
from collections import deque
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

from radserve._codec._decode import Answer, to_answer
from radserve._codec._flow import Ask, Infer
from radserve._codec._item import Item
from radserve._codec._pace import Pace
from radserve._codec._wire import to_joint_request
from radserve.errors import DeadlineExceededError, Retry, ServerError, ServerOverloadedError, UnauthenticatedError
from radserve.options import Priority
from radserve.telemetry import current_span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from radserve._codec._call import CallOptions
    from radserve._codec._flow import Reply
    from radserve._codec._item import Key
    from radserve.contracts import Contract
    from radserve.options import ClientOptions

    Error = TypeVar("Error", bound=BaseException)

_UNDER_WAY = 2  # of a kind, at each server: one is worked on, one waits; while they are, others gather
_HELD_S = 0.005  # should they take long, nobody waits for them: the server may have more instances than they fill
_LARGEST_BYTES = 2**22  # of a request: beyond, it is the bytes that cost, not the request
_SHORTEST_S = 1.0  # less than that is little time: two hundred times as long as anything is held here
_WORTH_SPLITTING = 8  # rows: of fewer, it is the request that costs
_ROUNDS = 4  # or less than what so many requests of late took: two under way, its own, and one in reserve
_REMEMBERED_S = 10.0


class Group:
    """Items that are sent in one request, in their order.

    Attributes:
        items: The items.
        sent: When.
        way: By what the model's ``Pace`` knows it.
        rows: All of its items'.
    """

    __slots__ = ("items", "rows", "sent", "way")

    def __init__(self, items: list[Item], sent: float, way: int) -> None:
        self.items = items
        self.sent = sent
        self.way = way
        self.rows = sum(item.rows for item in items)

    @property
    def request_id(self) -> str:
        """All of its items' ids, so that each is found in the server's log."""
        return ",".join(item.call.request_id for item in self.items)

    def ask(self) -> Ask:
        """The one request; it may take as long as the item with the least time has left.

        Raises:
            DeadlineExceededError: That item has none.
        """
        first = self.items[0]
        contract = first.contract
        remaining_s = min(item.call.deadline.remaining_s(contract.name) for item in self.items)
        request = to_joint_request(
            contract,
            [item.contents for item in self.items],
            tuple([(self.rows, *shape) for shape in first.key[3:]]),
            request_id=self.request_id,
            priority=first.call.priority,
            queue_timeout_s=remaining_s,
        )
        return Ask(call=Infer(request=request, avoid=first.avoid), timeout_s=remaining_s)

    def answers(self, reply: Reply) -> list[Answer]:
        """Each item's own rows of the answer.

        Raises:
            InferenceFailedError: The answer cannot be trusted.
        """
        whole = to_answer(self.items[0].contract, reply.message, batch_size=self.rows, request_id=self.request_id)
        if len(self.items) == 1:
            return [whole]
        answers, first = [], 0
        for item in self.items:
            # Copied: what is kept of one patient's answer would else keep those of all.
            arrays = {name: array[first : first + item.rows].copy() for name, array in whole.arrays.items()}
            for array in arrays.values():
                array.flags.writeable = False
            answers.append(Answer(arrays=arrays, request_id=item.call.request_id))
            first += item.rows
        return answers

    def error_of(self, item: Item, error: Error) -> Error:
        """What an item's call failed with: a copy, as an error that several calls raise would grow in each."""
        own = copy(error).with_traceback(None)  # whose frames hold the inputs of all
        if not isinstance(own, ServerError):
            return own
        own.args = (str(error).replace(self.request_id, item.call.request_id),)
        own.request_id = item.call.request_id
        return own


class _Lane:
    """Items of one key that wait, and how many of their requests are under way."""

    __slots__ = ("items", "rows", "under_way")

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.rows = 0
        self.under_way = 0


class Coalescer:
    """The inferences of one client that wait to be sent; not thread-safe.

    Args:
        most: Rows of one request, at most.
        largest_bytes: Size of one request, at most.
        endpoints: How many servers there are.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self, most: int, *, largest_bytes: int, endpoints: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._largest_bytes = min(_LARGEST_BYTES, largest_bytes)
        self._under_way = _UNDER_WAY * endpoints
        self._clock = clock
        self._lanes: dict[Key, _Lane] = {}
        self._slowest: dict[str, tuple[float, float]] = {}
        self._paces: dict[str, Pace] = {}

    def __len__(self) -> int:
        return sum(len(lane.items) for lane in self._lanes.values())

    def item(
        self, contract: Contract, arrays: Mapping[str, NDArray[Any]], call: CallOptions, avoid: frozenset[str]
    ) -> Item | None:
        """What can wait for others; None where an inference goes straight."""
        if call.priority is Priority.STAT or call.queue_timeout_s is not None or call.is_named:
            return None
        if call.deadline.remaining_or_zero_s() < max(_SHORTEST_S, _ROUNDS * self._slowest_s(contract)):
            return None
        item = Item(contract, arrays, call, avoid)
        has_room = item.rows < self._room(contract) and 2 * item.size <= self._largest_bytes
        return item if has_room else None

    def add(self, item: Item) -> None:
        """Let an item wait."""
        item.since = self._clock()
        item.span = current_span()
        lane = self._lanes.get(item.key)
        if lane is None:
            lane = self._lanes[item.key] = _Lane()
        lane.items.append(item)
        lane.rows += item.rows

    def discard(self, item: Item) -> bool:
        """Forget an item that nobody waits for any more; False where it was sent already."""
        lane = self._lanes.get(item.key)
        if lane is None or item not in lane.items:
            return False
        lane.items.remove(item)
        lane.rows -= item.rows
        self._drop_if_idle(item.key, lane)
        return True

    def take(self, is_wanted: Callable[[Item], bool] = lambda _: True) -> Group | None:
        """The next request to be sent now, which is under way until ``finish``; None where there is none.

        Args:
            is_wanted: Whether somebody still waits for an item.
        """
        now = self._clock()
        due = [(key, lane) for key, lane in self._lanes.items() if lane.items and self._is_due(lane, now)]
        if not due:
            return None
        key, lane = min(due, key=lambda one: one[1].items[0].since)
        contract = lane.items[0].contract
        pace = self._pace(contract)
        room, size = self._room(contract) if pace.shares else 1, 0
        free = self._under_way - lane.under_way
        if lane.rows < room and free > 1:
            # All in one request would come back together, and nobody would gather while it is worked on.
            room = min(room, max(_WORTH_SPLITTING, -(-lane.rows // free)))
        items: list[Item] = []
        while lane.items:
            item = lane.items[0]
            if is_wanted(item):
                room -= item.rows
                size += item.size
                if items and (room < 0 or size > self._largest_bytes):
                    break
                items.append(item)
            lane.items.popleft()
            lane.rows -= item.rows
        if not items:
            self._drop_if_idle(key, lane)
            return self.take(is_wanted)
        for item in items:
            item.is_shared = len(items) > 1
        lane.under_way += 1
        sent = pace.sent(sum(item.rows for item in items), now, waiting=lane.rows)
        return Group(items, now, sent)

    def due_s(self) -> float | None:
        """In how many seconds ``take`` gives a request even if none is finished until then; None: never."""
        oldest = [lane.items[0].since for lane in self._lanes.values() if lane.items]
        return max(0.0, min(oldest) + _HELD_S - self._clock()) if oldest else None

    def finish(self, group: Group, *, is_answered: bool) -> None:
        """A request was answered, or failed."""
        first = group.items[0]
        lane = self._lanes[first.key]
        lane.under_way -= 1
        now = self._clock()
        self._pace(first.contract).ended(group.way, group.rows, now, is_answered=is_answered)
        if now - group.sent >= self._slowest_s(first.contract):
            self._slowest[first.contract.sha256] = now - group.sent, now
        self._drop_if_idle(first.key, lane)

    def _slowest_s(self, contract: Contract) -> float:
        """How long the slowest request of late took."""
        taken_s, at = self._slowest.get(contract.sha256, (0.0, 0.0))
        return taken_s if self._clock() - at < _REMEMBERED_S else 0.0

    def _is_due(self, lane: _Lane, now: float) -> bool:
        first = lane.items[0]
        return (
            lane.under_way < self._under_way
            or lane.rows >= self._room(first.contract)
            or now - first.since >= _HELD_S
            or not self._pace(first.contract).shares
        )

    def _room(self, contract: Contract) -> int:
        return min(self._most, contract.max_batch_size)

    def _pace(self, contract: Contract) -> Pace:
        if contract.sha256 not in self._paces:
            self._paces[contract.sha256] = Pace()
        return self._paces[contract.sha256]

    def _drop_if_idle(self, key: Key, lane: _Lane) -> None:
        if not lane.items and not lane.under_way:
            del self._lanes[key]


def coalescer_of(options: ClientOptions) -> Coalescer | None:
    """A coalescer as a client wants it; None where each inference is to be sent alone."""
    if not options.coalesce or options.coalesce == 1:
        return None
    # What is in a message beside the inputs takes less than half of the smallest one.
    largest_bytes = options.max_message_bytes // 2
    return Coalescer(options.coalesce, largest_bytes=largest_bytes, endpoints=len(options.endpoints))


def may_be_anothers(error: ServerError, *, waited_s: float, remaining_s: float) -> bool:
    """Whether what a shared request failed with may be the fault of one item, so that the others are answered alone.

    Args:
        error: What it failed with.
        waited_s: How long an item has waited for it.
        remaining_s: How long it can go on.
    """
    if isinstance(error, ServerOverloadedError | UnauthenticatedError):
        return False
    if isinstance(error, DeadlineExceededError) and remaining_s < waited_s:
        return False  # what was too little for all is too little now
    return error.retry in (Retry.NEVER, Retry.ONCE_ELSEWHERE)
