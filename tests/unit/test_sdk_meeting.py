"""Calls that wait at the same time and share requests, in both shells; the server is a script."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.meetings import COUNT, TEXTS, AsyncEnd, Server, asked, connected, numbers, outcomes_of, texts_of
from support.scripted import replied
from support.servers import wait_until
from tritonclient.grpc import service_pb2

from radserve import (
    ClientClosedError,
    InferenceFailedError,
    Priority,
    RequestRejectedError,
    RetryPolicy,
    ServerOverloadedError,
    ServerUnavailableError,
)
from radserve._codec import Item
from radserve.audit import AuditLog
from radserve.errors import RadserveError, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from radserve._codec._flow import Call, Reply

both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
def test_every_answer_reaches_its_own_caller(kind: str) -> None:
    server = Server()
    answers = asked(kind, server)
    assert numbers(answers) == list(range(COUNT))
    ids = [answer.provenance.request_id for answer in answers]
    assert sorted(",".join(request.id for request in server.requests).split(",")) == sorted(ids)
    assert len(set(ids)) == COUNT


def test_calls_of_one_turn_share_a_request() -> None:
    server = Server()
    asked("async", server)
    assert server.batches == [COUNT]


def test_threads_share_requests_while_two_are_under_way() -> None:
    server = Server()
    model = connected("sync", server)
    door = threading.Event()
    server.act = lambda _texts, _endpoint: (door.wait(30), None)[1]
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.extend(model.predict_many(TEXTS, workers=COUNT)))
    thread.start()
    assert wait_until(lambda: len(server.requests) == 1)
    door.set()
    thread.join(30)
    assert numbers(answers) == list(range(COUNT))
    assert len(server.requests) <= COUNT


@both
@pytest.mark.parametrize("coalesce", [0, None])
def test_switched_off_each_is_sent_alone(kind: str, coalesce: int | None) -> None:
    server = Server()
    assert numbers(asked(kind, server, coalesce=coalesce)) == list(range(COUNT))
    assert server.batches == [1] * COUNT


@both
def test_urgent_ones_are_sent_alone(kind: str) -> None:
    server = Server()
    asked(kind, server, priority=Priority.STAT)
    assert server.batches == [1] * COUNT
    assert {request.parameters["priority"].uint64_param for request in server.requests} == {1}


def test_a_call_by_the_callers_own_id_is_sent_alone_and_told_by_it() -> None:
    server = Server()
    model = connected("async", server)

    async def use() -> list[Any]:
        named = (model.predict(text, request_id=f"worklist-{number}") for number, text in enumerate(TEXTS))
        return await asyncio.gather(*named)

    answers = asyncio.run(use())
    assert numbers(answers) == list(range(COUNT))
    assert server.batches == [1] * COUNT
    assert sorted(request.id for request in server.requests) == [f"worklist-{number}" for number in range(COUNT)]
    assert [answer.provenance.request_id for answer in answers] == [f"worklist-{number}" for number in range(COUNT)]


def test_the_synchronous_client_takes_the_callers_own_id_too() -> None:
    server = Server()
    answer = connected("sync", server).predict("report 3", request_id="worklist-3")
    assert (answer.provenance.request_id, [request.id for request in server.requests]) == ("worklist-3", ["worklist-3"])


def test_priorities_are_not_mixed() -> None:
    server = Server()
    model = connected("async", server)

    async def use() -> None:
        await asyncio.gather(
            *(outcomes_of(model, TEXTS, priority=one) for one in (None, Priority.ROUTINE, Priority.URGENT))
        )

    asyncio.run(use())
    sent = sorted((request.parameters["priority"].uint64_param, len(texts_of(request))) for request in server.requests)
    assert sent == [(0, COUNT), (2, COUNT), (3, COUNT)]


def failing(error: Callable[[str], RadserveError], bad: str = "report 3") -> Callable[[list[str], str], None]:
    def act(texts: list[str], endpoint: str) -> None:
        if bad in texts:
            raise error(endpoint)

    return act


def rejected(endpoint: str) -> RadserveError:
    return RequestRejectedError("refused", model="demo", endpoint=endpoint)


def died(endpoint: str) -> RadserveError:
    return InferenceFailedError("died", model="demo", endpoint=endpoint, retry=Retry.ONCE_ELSEWHERE)


@both
@pytest.mark.parametrize("error", [rejected, died])
@pytest.mark.parametrize("attempts", [1, 4])
def test_what_a_model_fails_on_fails_alone_and_is_asked_about_twice_at_most(
    kind: str, error: Callable[[str], RadserveError], attempts: int
) -> None:
    server = Server()
    server.act = failing(error)
    answers = numbers(asked(kind, server, retry=RetryPolicy(attempts=attempts)))
    others = [number for number in range(COUNT) if number != 3]
    assert [answers[number] for number in others] == others
    assert isinstance(answers[3], type)
    assert issubclass(answers[3], RadserveError)
    assert sum("report 3" in texts_of(request) for request in server.requests) <= 2


def test_what_a_model_refuses_with_others_and_dies_of_alone_is_not_asked_about_again() -> None:
    server = Server()

    def act(texts: list[str], endpoint: str) -> None:
        if "report 3" in texts:
            raise rejected(endpoint) if len(texts) > 1 else died(endpoint)

    server.act = act
    answers = numbers(asked("async", server, retry=RetryPolicy(attempts=4)))
    assert answers[3] is InferenceFailedError
    assert server.batches == [COUNT] + [1] * COUNT


@both
def test_those_who_gathered_are_sent_as_soon_as_a_request_ends(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radserve._codec._coalesce._HELD_S", 60.0)
    monkeypatch.setattr("radserve._codec._coalesce._UNDER_WAY", 0.5)  # one request, of two servers
    server = Server()
    assert numbers(asked(kind, server, coalesce=3)) == list(range(COUNT))
    assert max(server.batches) <= 3


def test_after_a_death_each_is_sent_elsewhere_alone() -> None:
    server = Server()
    server.act = failing(died)
    asked("async", server)
    assert server.batches == [COUNT] + [1] * COUNT
    assert server.endpoints == ["a:1"] + ["b:1"] * COUNT


def test_an_answer_that_cannot_be_trusted_is_asked_for_again_alone() -> None:
    server = Server()
    real = server.answer

    def answer(step: Call, timeout_s: float) -> Reply:
        reply = real(step, timeout_s)
        if "report 3" in texts_of(server.requests[-1]):
            count = server.batches[-1]
            response = service_pb2.ModelInferResponse.FromString(reply.message)
            response.raw_output_contents[0] = np.full((count, 2), np.nan, np.float32).tobytes()
            return replied(response, reply.endpoint)
        return reply

    server.answer = answer  # type: ignore[method-assign]
    expected: list[Any] = list(range(COUNT))
    expected[3] = InferenceFailedError
    assert numbers(asked("async", server)) == expected
    assert server.batches == [COUNT] + [1] * COUNT


def test_errors_name_their_own_call_alone() -> None:
    server = Server()

    def full(_texts: list[str], endpoint: str) -> None:
        told = f"full [request {server.requests[-1].id}]"
        raise ServerOverloadedError(told, request_id=server.requests[-1].id, endpoint=endpoint, retry=Retry.BACK_OFF)

    server.act = full
    errors = asked("async", server)
    assert server.batches == [COUNT]
    assert all(str(error) == f"full [request {error.request_id}]" for error in errors)
    assert len({error.request_id for error in errors}) == COUNT


@both
def test_a_server_that_is_not_reached_is_left_for_another_one(kind: str) -> None:
    server = Server()

    def act(_texts: list[str], endpoint: str) -> None:
        if endpoint == "a:1":
            msg = "not reached"
            raise ServerUnavailableError(msg, endpoint=endpoint, retry=Retry.ELSEWHERE)

    server.act = act
    assert numbers(asked(kind, server)) == list(range(COUNT))


@both
def test_the_audit_log_names_each_call(kind: str, tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", site_key=b"k" * 32, actor="PACS")
    answers = asked(kind, Server(), audit=log)
    told = (tmp_path / "audit.jsonl").read_text()
    assert len(told.splitlines()) == COUNT
    assert all(f'"{answer.provenance.request_id}"' in told for answer in answers)


def test_a_cancelled_call_that_waits_is_not_sent() -> None:
    server = Server()
    model = connected("async", server)

    async def use() -> list[Any]:
        tasks = [asyncio.ensure_future(model.predict(text)) for text in TEXTS]
        await asyncio.sleep(0)
        tasks[3].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(use())
    assert isinstance(answers.pop(3), asyncio.CancelledError)
    assert numbers(answers) == [0, 1, 2, 4, 5, 6, 7]
    assert [texts_of(request) for request in server.requests] == [[text for text in TEXTS if text != "report 3"]]


class Held(AsyncEnd):
    """Answers when it is told to, and notes calls that were given up."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.door = asyncio.Event()
        self.sent = asyncio.Event()
        self.given_up = 0

    async def call(self, step: Call, *, timeout_s: float) -> Reply:
        self.sent.set()
        try:
            await self.door.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return await super().call(step, timeout_s=timeout_s)


async def held_calls(model: Any, server: Server) -> tuple[Held, list[asyncio.Future[Any]]]:
    """Calls whose shared request is under way."""
    end = model._session.transport = Held(server)
    tasks = [asyncio.ensure_future(model.predict(text)) for text in TEXTS]
    await end.sent.wait()
    return end, tasks


def test_a_cancelled_call_leaves_the_others_their_answers() -> None:
    server = Server()
    model = connected("async", server)

    async def use() -> list[Any]:
        end, tasks = await held_calls(model, server)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks[1:])
        assert not end.given_up
        end.door.set()
        return await asyncio.gather(*tasks[:1])

    assert numbers(asyncio.run(use())) == [0]


def test_a_request_that_nobody_waits_for_is_given_up() -> None:
    model = connected("async", Server())

    async def use() -> tuple[int, set[Any]]:
        end, tasks = await held_calls(model, Server())
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return end.given_up, asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(use()) == (1, set())
    assert not model._session.coalescer._lanes


def test_closing_the_client_ends_those_that_wait_and_those_under_way() -> None:
    server = Server()
    model = connected("async", server)

    async def use() -> list[Any]:
        end, tasks = await held_calls(model, server)
        more = [asyncio.ensure_future(model.predict(text)) for text in TEXTS[:3]]
        await asyncio.sleep(0)
        await model._session.close()
        end.door.set()
        return await asyncio.gather(*tasks, *more, return_exceptions=True)

    assert numbers(asyncio.run(use())) == [ClientClosedError] * (COUNT + 3)


def test_dropped_half_way_no_thread_waits_on() -> None:
    server = Server()
    door = threading.Event()
    server.act = lambda _texts, _endpoint: (door.wait(30), None)[1]
    model = connected("sync", server)
    before = set(threading.enumerate())

    def texts() -> Iterable[str]:
        yield from TEXTS
        assert wait_until(lambda: bool(server.requests))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(model.predict_many(texts(), workers=COUNT))
    door.set()
    assert wait_until(lambda: set(threading.enumerate()) <= before)


@both
def test_what_is_no_error_of_ours_is_told_to_all_and_nobody_waits_on(kind: str) -> None:
    server = Server()

    def broken(_texts: list[str], _endpoint: str) -> None:
        raise ZeroDivisionError

    server.act = broken
    if kind == "async":
        assert numbers(asked(kind, server)) == [ZeroDivisionError] * COUNT
    else:
        with pytest.raises(ZeroDivisionError):
            asked(kind, server)


@both
def test_one_that_failed_keeps_no_reports_of_those_that_went_along(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.act = failing(rejected)
    kept: dict[str, weakref.ref[Any]] = {}

    def noting(contract_: Any, arrays: dict[str, Any], *others: Any) -> Item:
        kept[arrays["TEXT"][0, 0].decode()] = weakref.ref(arrays["TEXT"])
        return Item(contract_, arrays, *others)

    monkeypatch.setattr("radserve._codec._coalesce.Item", noting)
    gc.collect()
    gc.disable()  # whatever waits for it waits for long in a service
    try:
        answers = asked(kind, server)
        assert isinstance(answers[3], RequestRejectedError)
        assert len(kept) == COUNT
        assert [text for text, array in kept.items() if array() is not None] == ["report 3"]
    finally:
        gc.enable()
