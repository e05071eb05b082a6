"""Which waiting inferences go into one request: the decision itself, without any client."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scripted import message_of, replied, response_to
from support.sdk_contracts import TEXT, contract, tensors

from radserve import ClientOptions, DeadlineExceededError, InferenceFailedError, Priority, RetryPolicy
from radserve._codec import CallOptions, Coalescer, Deadline, Group, Item, Reply, coalescer_of
from radserve._codec._coalesce import may_be_anothers
from radserve.errors import (
    ClientClosedError,
    RequestRejectedError,
    Retry,
    ServerOverloadedError,
    ServerUnavailableError,
    UnauthenticatedError,
)

HELD_S = 0.005
NUMBERS = itertools.count()


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def call(timeout_s: float = 30, **given: Any) -> CallOptions:
    return CallOptions(
        deadline=Deadline(timeout_s),
        endpoints=("a:1",),
        retry=RetryPolicy(),
        random=lambda: 0.5,
        request_id=f"r{next(NUMBERS)}",
        **given,
    )


def coalescer(most: int = 8, *, largest_bytes: int = 2**20, clock: Clock | None = None, **given: Any) -> Coalescer:
    return Coalescer(most, largest_bytes=largest_bytes, clock=clock or Clock(), **given)


def floats(rows: int = 1, length: int = 1, value: float = 0) -> dict[str, Any]:
    """Inputs of the contract of tensors."""
    texts = np.empty((rows, 1), object)
    texts[:] = "x"
    return {"X": np.full((rows, length, 2), value, np.float32), "NOTE": texts}


MODELS = {version: tensors(version=version, max_batch_size=16) for version in (1, 2)}


def waiting(meeting: Coalescer, *, version: int = 1, rows: int = 1, length: int = 1, **given: Any) -> Item:
    item = meeting.item(MODELS[version], floats(rows, length), call(**given), frozenset())
    assert item is not None
    meeting.add(item)
    return item


kinds = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 2]),
        "rows": st.integers(1, 5),
        "length": st.integers(1, 3),
        "priority": st.sampled_from([None, Priority.URGENT, Priority.ROUTINE]),
    }
)
events = st.lists(
    st.one_of(kinds, st.sampled_from(["take", "finish", "discard", "give up"]), st.floats(0, 0.01)),
    min_size=1,
    max_size=60,
)


class Run:
    """What became of the items of one example."""

    def __init__(self, most: int) -> None:
        self._clock = Clock()
        self.meeting = coalescer(most, clock=self._clock)
        self.added: list[Item] = []
        self.gone: list[Item] = []
        self.groups: list[Group] = []
        self._under_way: list[Group] = []

    def do(self, event: Any) -> None:
        if isinstance(event, dict):
            self.added.append(waiting(self.meeting, **event))
        elif isinstance(event, float):
            self._clock.now += event
        elif event == "take":
            self._take()
        elif event == "finish" and self._under_way:
            self.meeting.finish(self._under_way.pop(0), is_answered=True)
        elif event in ("discard", "give up") and self.added and not self._is_settled(self.added[-1]):
            self.gone.append(self.added[-1])
            assert event == "give up" or self.meeting.discard(self.added[-1])

    def finish(self) -> None:
        while len(self.meeting):
            self._clock.now += (self.meeting.due_s() or 0) + 1e-6
            self._take()
        for group in self._under_way:
            self.meeting.finish(group, is_answered=True)

    def _take(self) -> None:
        group = self.meeting.take(lambda item: item not in self.gone)
        if group is not None:
            self.groups.append(group)
            self._under_way.append(group)

    def _is_settled(self, item: Item) -> bool:
        return item in self.gone or any(item in group.items for group in self.groups)


@settings(max_examples=200)
@given(events=events, most=st.integers(6, 12))
def test_each_item_is_sent_once_in_order_and_never_with_another_kind(events: list[Any], most: int) -> None:
    run = Run(most)
    for event in events:
        run.do(event)
    run.finish()
    sent = [item for group in run.groups for item in group.items]
    assert sorted(map(id, [*sent, *run.gone])) == sorted(map(id, run.added))
    for group in run.groups:
        assert len({item.key for item in group.items}) == 1
        assert len({(item.contract.version, item.call.priority) for item in group.items}) == 1
        assert sum(item.rows for item in group.items) <= most
        assert {item.is_shared for item in group.items} == {len(group.items) > 1}
    for key in {item.key for item in sent}:
        assert [item for item in sent if item.key == key] == [
            item for item in run.added if item.key == key and item not in run.gone
        ]
    assert not run.meeting._lanes
    assert run.meeting.take() is None


def test_a_call_that_comes_alone_goes_alone_at_once() -> None:
    meeting = coalescer()
    first = waiting(meeting)
    group = meeting.take()
    assert group is not None
    assert group.items == [first]
    assert not first.is_shared
    assert meeting.take() is None
    assert meeting.due_s() is None


@pytest.mark.parametrize(("endpoints", "at_once"), [(1, 2), (3, 6)])
def test_while_enough_are_under_way_others_gather(endpoints: int, at_once: int) -> None:
    meeting = coalescer(endpoints=endpoints)
    under_way = []
    for _ in range(at_once):
        waiting(meeting)
        under_way.append(meeting.take())
    gathered = [waiting(meeting) for _ in range(3)]
    assert meeting.take() is None
    assert under_way[0] is not None
    meeting.finish(under_way[0], is_answered=True)
    group = meeting.take()
    assert group is not None
    assert group.items == gathered


def test_as_many_as_go_into_one_request_wait_for_nobody() -> None:
    meeting = coalescer(4)
    for _ in range(2):
        waiting(meeting)
        meeting.take()
    items = [waiting(meeting) for _ in range(5)]
    group = meeting.take()
    assert group is not None
    assert group.items == items[:4]
    assert meeting.take() is None


def test_nobody_waits_long_for_requests_that_take_long() -> None:
    clock = Clock()
    meeting = coalescer(clock=clock)
    for _ in range(2):
        waiting(meeting)
        meeting.take()
    waiting(meeting)
    assert meeting.due_s() == pytest.approx(HELD_S)
    clock.now += HELD_S / 2
    assert meeting.take() is None
    assert meeting.due_s() == pytest.approx(HELD_S / 2)
    clock.now += HELD_S
    assert meeting.due_s() == 0
    assert meeting.take() is not None


def test_the_kind_that_waits_longest_is_sent_first() -> None:
    clock = Clock()
    meeting = coalescer(clock=clock)
    for version in (2, 1):
        waiting(meeting, version=version)
        clock.now += 0.001
    first, second = meeting.take(), meeting.take()
    assert first is not None
    assert second is not None
    assert [group.items[0].contract.version for group in (first, second)] == [2, 1]


STRAIGHT: dict[str, dict[str, Any]] = {
    "urgent": {"priority": Priority.STAT},
    "a limit of its own in the queue": {"queue_timeout_s": 5.0},
    "an id of the caller's": {"is_named": True},
    "little time": {"timeout_s": 0.9},
    "as many rows as a request may have": {"rows": 8},
    "more than half of a request's bytes": {"length": 40},
    "no batch axis": {"contract": tensors(max_batch_size=0)},
    "no room on the batch axis": {"contract": tensors(max_batch_size=1)},
}


@pytest.mark.parametrize("case", STRAIGHT.values(), ids=STRAIGHT.keys())
def test_what_goes_straight(case: dict[str, Any]) -> None:
    given = {"rows": 1, "length": 1, "contract": MODELS[1], **case}
    arrays = floats(given.pop("rows"), given.pop("length"))
    model = given.pop("contract")
    meeting = coalescer(largest_bytes=600)
    assert meeting.item(MODELS[1], floats(), call(), frozenset()) is not None
    assert meeting.item(model, arrays, call(**given), frozenset()) is None


def test_little_time_is_what_four_slow_requests_take_until_they_are_forgotten() -> None:
    clock = Clock()
    meeting = coalescer(clock=clock)
    waiting(meeting)
    slow = meeting.take()
    assert slow is not None
    clock.now += 2
    meeting.finish(slow, is_answered=True)
    assert meeting.item(MODELS[1], floats(), call(7.5), frozenset()) is None
    assert meeting.item(MODELS[1], floats(), call(9), frozenset()) is not None
    assert meeting.item(MODELS[2], floats(), call(7.5), frozenset()) is not None
    clock.now += 11
    assert meeting.item(MODELS[1], floats(), call(7.5), frozenset()) is not None


def test_servers_to_be_avoided_are_part_of_the_kind() -> None:
    meeting = coalescer()
    for avoid in (frozenset(), frozenset({"b:1"})):
        item = meeting.item(MODELS[1], floats(), call(), avoid)
        assert item is not None
        meeting.add(item)
    first, second = meeting.take(), meeting.take()
    assert first is not None
    assert second is not None
    assert [one.ask().call.avoid for one in (first, second)] == [frozenset(), {"b:1"}]


@pytest.mark.parametrize(("count", "expected"), [(5, [5]), (12, [8, 4]), (14, [8, 6]), (16, [16])])
def test_many_that_wait_are_shared_out_among_the_requests_that_may_go(count: int, expected: list[int]) -> None:
    meeting = coalescer(16)
    for _ in range(count):
        waiting(meeting)
    groups = []
    while (group := meeting.take()) is not None:
        groups.append(group.rows)
    assert groups == expected


def test_a_request_holds_no_more_bytes_than_it_may() -> None:
    meeting = coalescer(largest_bytes=600)
    sizes = {waiting(meeting, length=20).size for _ in range(5)}
    assert sizes == {165}
    groups = []
    while (group := meeting.take()) is not None:
        groups.append(len(group.items))
    assert groups == [3, 2]


def test_all_that_wait_go_into_the_last_request_that_may_go() -> None:
    meeting = coalescer(16)
    waiting(meeting)
    assert meeting.take() is not None
    for _ in range(12):
        waiting(meeting)
    group = meeting.take()
    assert group is not None
    assert group.rows == 12


def of_texts(*texts: str, timeouts: tuple[float, ...] = ()) -> Group:
    """A request of several reports."""
    meeting = coalescer()
    for text, timeout_s in itertools.zip_longest(texts, timeouts, fillvalue=30.0):
        array = np.array([[str(text).encode()]], object)
        item = meeting.item(contract(TEXT), {"TEXT": array}, call(float(timeout_s)), frozenset())
        assert item is not None
        meeting.add(item)
    group = meeting.take()
    assert group is not None
    return group


def test_the_request_holds_all_inputs_and_names_all_calls() -> None:
    group = of_texts("one", "two", "three", timeouts=(30.0, 5.0, 20.0))
    ask = group.ask()
    request = message_of(ask.call.request)  # type: ignore[union-attr]
    assert list(request.inputs[0].shape) == [3, 1]
    assert request.raw_input_contents[0] == b"\x03\0\0\0one\x03\0\0\0two\x05\0\0\0three"
    assert request.id == ",".join(item.call.request_id for item in group.items)
    assert 4 < ask.timeout_s <= 5
    assert request.parameters["timeout"].int64_param <= 5_000_000


def test_arrays_are_put_one_behind_the_other_whatever_their_layout() -> None:
    meeting = coalescer()
    given = [np.arange(12, dtype=np.float32).reshape(2, 3, 2) + 100 * number for number in range(2)]
    for array in (given[0], np.asfortranarray(given[1])):
        arrays = {**floats(2), "X": array}
        item = meeting.item(MODELS[1], arrays, call(), frozenset())
        assert item is not None
        meeting.add(item)
    group = meeting.take()
    assert group is not None
    request = message_of(group.ask().call.request)  # type: ignore[union-attr]
    assert request.raw_input_contents[0] == np.concatenate(given).tobytes()
    assert list(request.inputs[0].shape) == [4, 3, 2]


def answered(group: Group, probabilities: list[float]) -> Reply:
    response = response_to(group.ask().call.request)  # type: ignore[union-attr]
    table = np.array([[1 - value, value] for value in probabilities], np.float32)
    response.raw_output_contents[0] = table.tobytes()
    return replied(response, "a:1")


def test_each_item_gets_its_own_rows_and_keeps_no_others() -> None:
    group = of_texts("one", "two", "three")
    answers = group.answers(answered(group, [0.1, 0.2, 0.3]))
    assert [round(float(answer.arrays["PROBABILITIES"][0, 1]), 3) for answer in answers] == [0.1, 0.2, 0.3]
    assert [answer.request_id for answer in answers] == [item.call.request_id for item in group.items]
    for answer in answers:
        for array in answer.arrays.values():
            assert array.base is None
            assert len(array) == 1
            assert not array.flags.writeable


def test_an_answer_that_cannot_be_trusted_is_nobodys() -> None:
    group = of_texts("one", "two")
    with pytest.raises(InferenceFailedError):
        group.answers(answered(group, [0.5, float("nan")]))
    with pytest.raises(InferenceFailedError):
        group.answers(answered(of_texts("one", "two"), [0.5, 0.5]))


def test_each_item_gets_an_error_of_its_own_that_names_it_alone() -> None:
    group = of_texts("one", "two")
    failed = RequestRejectedError(
        f"no [request {group.request_id}]", request_id=group.request_id, code="INTERNAL", retry=Retry.ELSEWHERE
    )
    first, second = (group.error_of(item, failed) for item in group.items)
    assert first is not second
    assert [str(first), str(second)] == [f"no [request {item.call.request_id}]" for item in group.items]
    assert (first.request_id, first.code, first.retry) == (group.items[0].call.request_id, "INTERNAL", Retry.ELSEWHERE)
    closed = group.error_of(group.items[0], ClientClosedError("closed"))
    assert (type(closed), str(closed)) == (ClientClosedError, "closed")


@pytest.mark.parametrize(
    ("error", "left_s", "alone"),
    [
        (RequestRejectedError("x"), 5, True),
        (InferenceFailedError("x"), 5, True),
        (InferenceFailedError("x", retry=Retry.ONCE_ELSEWHERE), 5, True),
        (ServerUnavailableError("x", retry=Retry.ONCE_ELSEWHERE), 5, True),
        (ServerUnavailableError("x", retry=Retry.ELSEWHERE), 5, False),
        (ServerOverloadedError("x", retry=Retry.BACK_OFF), 5, False),
        (ServerOverloadedError("x"), 5, False),
        (UnauthenticatedError("x"), 5, False),
        (DeadlineExceededError("x"), 5, True),
        (DeadlineExceededError("x"), 0.5, False),
    ],
    ids=str,
)
def test_what_may_be_another_items_fault(error: Any, left_s: float, alone: bool) -> None:  # noqa: FBT001 - a parameter
    assert may_be_anothers(error, waited_s=1, remaining_s=left_s) is alone


@pytest.mark.parametrize(("coalesce", "is_on"), [(8, True), (2, True), (1, False), (0, False), (None, False)])
def test_the_option_turns_it_off(coalesce: int | None, is_on: bool) -> None:  # noqa: FBT001 - a parameter
    assert (coalescer_of(ClientOptions(endpoints=("a:1",), coalesce=coalesce)) is not None) is is_on
