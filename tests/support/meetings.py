"""Both shells at a server that is a script, for calls that wait at the same time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from support.scripted import message_of, replied, response_to
from support.sdk_contracts import TEXT, contract

from radserve import (
    AsyncClient,
    AsyncModel,
    Client,
    ClientClosedError,
    ClientOptions,
    Model,
    Priority,
    Rejection,
)
from radserve._codec._flow import Infer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tritonclient.grpc import service_pb2

    from radserve._codec._flow import Call

COUNT = 8
TEXTS = [f"report {number}" for number in range(COUNT)]


class Server:
    """Answers each report by its last number, after a turn; what it does with a request may be given.

    Attributes:
        requests: What it was sent.
        act: Looks at each request and the reports in it first.
        is_closed: Whether the client was closed.
    """

    def __init__(self) -> None:
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.endpoints: list[str] = []
        self.act: Callable[[list[str], str], None] = lambda _texts, _endpoint: None
        self.is_closed = False

    @property
    def batches(self) -> list[int]:
        return [int(request.inputs[0].shape[0]) for request in self.requests]

    def close(self) -> None:
        self.is_closed = True

    def answer(self, step: Call, timeout_s: float) -> Reply:
        assert isinstance(step, Infer)
        assert timeout_s > 0
        (endpoint,) = sorted({"a:1", "b:1"} - set(step.avoid))[:1]
        request = message_of(step.request)
        self.requests.append(request)
        self.endpoints.append(endpoint)
        texts = texts_of(request)
        self.act(texts, endpoint)
        response = response_to(step.request)
        p = [int(text.split()[-1]) / 1000 for text in texts]
        response.raw_output_contents[0] = np.array([[value, value] for value in p], np.float32).tobytes()
        response.raw_output_contents[1] = np.zeros((len(p), 2), np.int8).tobytes()
        return replied(response, endpoint)


def texts_of(request: service_pb2.ModelInferRequest) -> list[str]:
    raw, texts = request.raw_input_contents[0], []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return texts


class SyncEnd:
    """The server for the synchronous client."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()

    @property
    def is_closed(self) -> bool:
        return self._server.is_closed

    def call(self, step: Call, *, timeout_s: float, respond: object = None) -> Reply:  # noqa: ARG002 - as the transport's
        with self._lock:
            return self._server.answer(step, timeout_s)


class AsyncEnd:
    """The server for the asynchronous client."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def is_closed(self) -> bool:
        return self._server.is_closed

    async def call(self, step: Call, *, timeout_s: float) -> Reply:
        await asyncio.sleep(0)
        if self._server.is_closed:
            msg = "the client was closed"
            raise ClientClosedError(msg)
        return self._server.answer(step, timeout_s)

    async def close(self) -> None:
        self._server.close()


def connected(kind: str, server: Server, **options: Any) -> Any:
    """A model of one kind of client."""
    given = ClientOptions(endpoints=("a:1", "b:1"), insecure=True, **options)
    client: Any = Client(options=given) if kind == "sync" else AsyncClient(options=given)
    client._session.transport = SyncEnd(server) if kind == "sync" else AsyncEnd(server)
    model: Any = (Model if kind == "sync" else AsyncModel)(client._session, contract(TEXT))
    return model


async def outcomes_of(model: Any, texts: Iterable[str], **given: Any) -> list[Any]:
    """Each call's own result or error, of calls made at the same time."""
    calls = (model.predict(text, **given) for text in texts)
    return await asyncio.gather(*calls, return_exceptions=True)


def asked(kind: str, server: Server, *, priority: Priority | None = None, **options: Any) -> list[Any]:
    """Results or errors of all texts: of concurrent calls, or of one ``predict_many``."""
    model = connected(kind, server, **options)
    if kind == "async":
        return asyncio.run(outcomes_of(model, TEXTS, priority=priority))
    answers = model.predict_many(TEXTS, workers=COUNT, priority=priority)
    return [answer.error if isinstance(answer, Rejection) else answer for answer in answers]


def numbers(answers: list[Any]) -> list[int | type]:
    """By what number each text was answered, or with which error."""
    return [type(one) if isinstance(one, Exception) else round(1000 * one.findings[0].probability) for one in answers]
