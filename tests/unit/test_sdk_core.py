"""One attempt of a call: which server is asked what, with answers of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from support.sdk_contracts import arrays, tensors
from tritonclient.grpc import service_pb2

from radserve._codec._flow import Infer, ListModels
from radserve._codec._wire import to_request
from radserve._transport._calls import Failure
from radserve._transport._core import Core
from radserve.errors import InputError, ServerError, ServerUnavailableError
from radserve.options import ClientOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = "127.0.0.1:1", "127.0.0.1:2"
LOST = Failure(grpc.StatusCode.UNAVAILABLE, "lost")
READY = service_pb2.ServerReadyResponse(ready=True)
UNREADY = service_pb2.ServerReadyResponse(ready=False)
LISTED = service_pb2.RepositoryIndexResponse()


@pytest.fixture
def core() -> Iterator[Core]:
    """Two servers, both of which failed twice a while ago."""
    made = Core(ClientOptions(endpoints=(A, B)), grpc)
    for other in (B, A):
        for _ in range(2):
            with pytest.raises(ServerError):
                attempt(made, [], {"RepositoryIndex": LOST}, avoid=frozenset({other}))
        made._pool._clock = lambda: 1e9
    yield made
    for channel in made.close():
        channel.close()


def attempt(core: Core, trace: list[str], answers: dict[str, Any], *, avoid: frozenset[str] = frozenset()) -> str:
    """Which server answered in the end; each call's answer is that of its method, or of server and method."""
    steps = core.attempt(ListModels(avoid=avoid), 10.0)
    response = None
    while True:
        try:
            send = steps.send(response)
        except StopIteration as end:
            endpoint: str = end.value.endpoint
            return endpoint
        (url,) = (url for url, connection in core._connections.items() if connection is send.connection)
        trace.append(f"{send.rpc.method} {url[-1]}")
        response = answers.get(trace[-1], answers.get(send.rpc.method))


@pytest.mark.parametrize(
    ("answers", "avoid", "told"),
    [
        ({"ServerReady": READY}, "", "ServerReady 1, RepositoryIndex 1"),
        ({"ServerReady 1": UNREADY, "ServerReady 2": READY}, "", "ServerReady 1, ServerReady 2, RepositoryIndex 2"),
        ({"ServerReady 1": LOST, "ServerReady 2": READY}, "", "ServerReady 1, ServerReady 2, RepositoryIndex 2"),
        ({"ServerReady 1": UNREADY}, B, "ServerReady 1, RepositoryIndex 1"),
        ({"ServerReady": UNREADY}, "", "ServerReady 1, ServerReady 2, RepositoryIndex 2"),
    ],
    ids=["ready", "not ready", "lost", "not ready, but there is no other", "none is ready"],
)
def test_a_server_that_failed_shows_that_it_is_ready_while_there_is_another(
    core: Core, answers: dict[str, Any], avoid: str, told: str
) -> None:
    trace: list[str] = []
    endpoint = attempt(core, trace, {"RepositoryIndex": LISTED, **answers}, avoid=frozenset({avoid} - {""}))
    assert ", ".join(trace) == told
    assert endpoint.endswith(told[-1])


def test_servers_that_failed_and_do_not_answer_are_given_no_call(core: Core) -> None:
    trace: list[str] = []
    with pytest.raises(ServerUnavailableError):
        attempt(core, trace, {"ServerReady": LOST})
    assert trace == ["ServerReady 1", "ServerReady 2"]


@pytest.mark.parametrize("too_much", [0, 1])
def test_a_request_may_be_as_large_as_a_message_and_no_byte_larger(too_much: int) -> None:
    request = to_request(tensors(), arrays(X=np.zeros((1, 2**14, 2), np.float32)), request_id="r")
    core = Core(ClientOptions(endpoints=(A,), max_message_bytes=len(request.encoded()) - too_much), grpc)
    steps = core.attempt(Infer(request=request), 10.0)
    if too_much:
        with pytest.raises(InputError, match="send fewer items"):
            next(steps)
    else:
        assert next(steps).rpc.request is request
    steps.close()
    for channel in core.close():
        channel.close()
