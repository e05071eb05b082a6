"""Both clients on servers that answer by a script, with a clock that only they move."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from support.sdk_contracts import TEXT, contract
from tritonclient.grpc import model_config_pb2, service_pb2

from radserve import AsyncClient, AsyncModel, Client, ClientOptions, Model, ModelNotFoundError
from radserve._codec._flow import Infer, IsReady, ListModels, ReadConfig, Reply
from radserve.contracts import CONTRACT_PARAMETER, Contract, dump_contract
from radserve.errors import Retry, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pytest
    from numpy.typing import NDArray

    from radserve._codec._flow import Call
    from radserve._codec._wire import Request

    Outcome = Callable[["ScriptedTransport", Call, str], Any]

KINDS = ("sync", "async")


class ScriptedTransport:
    """Servers whose next outcomes are given; each call takes the next one of the server it goes to.

    Attributes:
        trace: What was done, in order.
        requests: Of the inferences, in order.
        now: The clock, in seconds.
    """

    is_closed = False

    def __init__(self, script: Mapping[str, Sequence[Outcome]]) -> None:
        self._script = {f"{name}:1": deque(outcomes) for name, outcomes in script.items()}
        self.trace: list[str] = []
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.trace.append(f"sleep {seconds:.3g}")
        self.now += seconds

    def call(self, step: Call, *, timeout_s: float) -> Reply:
        assert timeout_s > 0
        usable = [endpoint for endpoint in self._script if endpoint not in step.avoid] or list(self._script)
        endpoint = step.endpoint or usable[0]
        self.trace.append(f"{type(step).__name__} {endpoint.removesuffix(':1')}")
        if isinstance(step, Infer):
            self.requests.append(message_of(step.request))
        outcome = self._script[endpoint].popleft()
        return replied(outcome(self, step, endpoint), endpoint)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """``host:port`` of each server."""
        return tuple(self._script)

    @property
    def is_played(self) -> bool:
        """Whether nothing was left out."""
        return not any(self._script.values())


class AwaitedTransport:
    """The same, to be awaited."""

    is_closed = False

    def __init__(self, transport: ScriptedTransport) -> None:
        self._transport = transport

    async def call(self, step: Call, *, timeout_s: float) -> Reply:
        await asyncio.sleep(0)
        return self._transport.call(step, timeout_s=timeout_s)


class Shell:
    """A client of one kind on a script.

    Args:
        kind: "sync" or "async".
        script: The outcomes of each server.
        monkeypatch: Puts the script's clock in place of the true one.
        served: What the model's contract was when it was read.
        options: Attributes of ClientOptions.
    """

    def __init__(
        self,
        kind: str,
        script: Mapping[str, Sequence[Outcome]],
        monkeypatch: pytest.MonkeyPatch,
        *,
        served: Contract | None = None,
        **options: Any,
    ) -> None:
        self.transport = ScriptedTransport(script)
        self._is_async = kind == "async"

        async def sleep(seconds: float) -> None:
            self.transport.sleep(seconds)

        monkeypatch.setattr("radserve._codec._deadline.time", self.transport)
        monkeypatch.setattr("radserve.client._session.time", self.transport)
        monkeypatch.setattr("radserve.aio._session.asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
        monkeypatch.setattr("radserve._codec._call.random", SimpleNamespace(random=lambda: 0.5))
        given = ClientOptions(endpoints=self.transport.endpoints, insecure=True, **options)
        kind_of_client: Any = AsyncClient if self._is_async else Client
        self.client = kind_of_client(options=given)
        self.client._session.transport = AwaitedTransport(self.transport) if self._is_async else self.transport
        kind_of_model: Any = AsyncModel if self._is_async else Model
        self.model = kind_of_model(self.client._session, served or contract(TEXT))

    def __call__(self, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call a method of the client or the model, and wait for what it gives."""
        return asyncio.run(method(*args, **named)) if self._is_async else method(*args, **named)


def answered(transport: ScriptedTransport, step: Call, endpoint: str) -> Any:  # noqa: ARG001 - an outcome's arguments
    """A response of two findings about a report."""
    assert isinstance(step, Infer)
    return response_to(step.request)


def message_of(request: Request) -> service_pb2.ModelInferRequest:
    """A request, as the server reads it."""
    return service_pb2.ModelInferRequest.FromString(request.encoded())


def replied(message: Any, endpoint: str) -> Reply:
    """An answer, as the transport gives it."""
    is_inference = isinstance(message, service_pb2.ModelInferResponse)
    return Reply(message=message.SerializeToString() if is_inference else message, endpoint=endpoint)


def response_to(request: Request) -> service_pb2.ModelInferResponse:
    """What the model of support.sdk_contracts answers to as many reports as were sent."""
    batch = message_of(request).inputs[0].shape[0]
    response = service_pb2.ModelInferResponse(
        model_name=request.model, model_version=str(request.version), id=request.id
    )
    given: dict[str, tuple[str, NDArray[Any]]] = {
        "PROBABILITIES": ("FP32", np.tile(np.array([[0.25, 0.75]], np.float32), (batch, 1))),
        "DECISIONS": ("INT8", np.tile(np.array([[0, 2]], np.int8), (batch, 1))),
        "TOKEN_COUNT": ("INT32", np.full((batch, 1), 2, np.int32)),
    }
    for name, (datatype, array) in given.items():
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return response


def of_another_version(transport: ScriptedTransport, step: Call, endpoint: str) -> Any:
    """A response that cannot be trusted."""
    response = answered(transport, step, endpoint)
    response.model_version = "99"
    return response


def serving(version: int, **changed: Any) -> Outcome:
    """The configuration of the report model in a version."""
    return config(contract(TEXT, version=version, **changed))


def config(served: Contract | None, *, name: str = "demo", text: str | None = None) -> Outcome:
    """A model's configuration, with a contract or as a step's."""

    def outcome(transport: ScriptedTransport, step: Call, endpoint: str) -> Any:  # noqa: ARG001 - see answered
        assert isinstance(step, ReadConfig)
        told = model_config_pb2.ModelConfig(name=served.name if served else name)
        if served or text:
            told.parameters[CONTRACT_PARAMETER].string_value = text or (dump_contract(served) if served else "")
        return told

    return outcome


def listing(*names: str) -> Outcome:
    """The names of the models."""

    def outcome(transport: ScriptedTransport, step: Call, endpoint: str) -> Any:  # noqa: ARG001 - see answered
        assert isinstance(step, ListModels)
        return list(names)

    return outcome


def is_ready(transport: ScriptedTransport, step: Call, endpoint: str) -> Any:  # noqa: ARG001 - see answered
    """A server that takes requests."""
    assert isinstance(step, IsReady)
    return True


def is_leaving(transport: ScriptedTransport, step: Call, endpoint: str) -> Any:  # noqa: ARG001 - see answered
    """A server that takes none any more."""
    assert isinstance(step, IsReady)
    return False


def failing(kind: type[ServerError], retry: Retry, *, after_s: float = 0.0) -> Outcome:
    """An error, after some time."""

    def outcome(transport: ScriptedTransport, step: Call, endpoint: str) -> Any:  # noqa: ARG001 - see answered
        transport.now += after_s
        told = kind("failed", model="demo", version=3, endpoint=endpoint, retry=retry)
        raise told

    return outcome


missing = failing(ModelNotFoundError, Retry.NEW_CONTRACT)
