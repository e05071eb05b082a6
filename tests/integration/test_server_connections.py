"""Many clients at once: each has its own connection, and each gets its own answers."""

from __future__ import annotations

import asyncio
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from support.repositories import write_add_one
from tritonclient.grpc import service_pb2

from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CLIENTS = 1000
USUAL_LIMIT = 1024  # of open files, in most shells
TIMEOUT_S = 60.0
METHOD = "/inference.GRPCInferenceService/ModelInfer"
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@contextmanager
def open_files(wanted: int) -> Iterator[None]:
    """Let this process, and those it starts, open so many files."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"no process may open {wanted} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def request_of(number: int) -> Any:
    request = service_pb2.ModelInferRequest(model_name="add_one")
    request.inputs.add(name="X", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.full(4, number, np.float32).tobytes())
    return request


async def ask_all(url: str, numbers: Sequence[int]) -> list[NDArray[np.float32]]:
    """Connect a client for each number; when all are connected, each asks with its own."""
    channels = [grpc.aio.insecure_channel(url, options=OWN_CONNECTION) for _ in numbers]

    async def answer(channel: grpc.aio.Channel, number: int) -> NDArray[np.float32]:
        call = channel.unary_unary(
            METHOD,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        reply = await call(request_of(number), timeout=TIMEOUT_S)
        return np.frombuffer(reply.raw_output_contents[0], np.float32)

    try:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*(channel.channel_ready() for channel in channels))
        return await asyncio.gather(*map(answer, channels, numbers))
    finally:
        await asyncio.gather(*(channel.close(None) for channel in channels))


def test_a_thousand_clients_are_all_answered_by_the_same_server(tmp_path: Path) -> None:
    write_add_one(tmp_path)
    with open_files(USUAL_LIMIT):
        server = EmbeddedServer(tmp_path)
        server.start()
    try:
        pid = server.pid
        with open_files(2 * CLIENTS):
            answers = asyncio.run(ask_all(server.grpc_url, range(CLIENTS)))
        assert np.array_equal(answers, np.repeat(np.arange(CLIENTS)[:, None] + 1, 4, axis=1))
        assert server.pid == pid
    finally:
        server.stop()
