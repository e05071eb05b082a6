"""A gRPC server that passes for Triton and answers after times that it chose, and wrote down."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from radserve.contracts import CONTRACT_PARAMETER, Contract, dump_contract

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

Answered = tuple[float, float]


class StubTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc] # untyped
    """Serves one model, in a thread of its own, from entering the context to leaving it.

    Args:
        contract: Of the model.
        service_s: The time of the n-th inference.
        stall: Begin and end of a time in which nothing is answered, in seconds since the first inference.

    Attributes:
        answered: When each inference came and was answered, by CLOCK_MONOTONIC.
        url: ``host:port``.
    """

    def __init__(
        self,
        contract: Contract,
        service_s: Callable[[int], float],
        *,
        stall: tuple[float, float] = (math.inf, math.inf),
    ) -> None:
        self._contract, self._service_s, self._stall = contract, service_s, stall
        self.answered: list[Answered] = []
        self.url = ""
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)
        self.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self._started.set()
        await self._stop.wait()
        await server.stop(1)

    async def ModelConfig(self, *_: Any) -> service_pb2.ModelConfigResponse:  # noqa: N802 - gRPC's
        """The contract."""
        config = model_config_pb2.ModelConfig(name=self._contract.name)
        config.parameters[CONTRACT_PARAMETER].string_value = dump_contract(self._contract)
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelStatistics(self, _: Any, context: Any) -> None:  # noqa: N802 - gRPC's
        """None."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED)

    async def ModelInfer(self, request: Any, *_: Any) -> service_pb2.ModelInferResponse:  # noqa: N802 - gRPC's
        """Zeros, when it is time."""
        came = time.monotonic()
        first = self.answered[0][0] if self.answered else came
        done = came + self._service_s(len(self.answered))
        begin, end = (first + edge for edge in self._stall)
        number, done = len(self.answered), end if begin <= done < end else done
        self.answered.append((came, done))
        await asyncio.sleep(done - time.monotonic())
        self.answered[number] = came, time.monotonic()  # as it really is where other processes came first
        response = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id
        )
        batch = request.inputs[0].shape[0]
        for tensor in self._contract.outputs:
            response.outputs.add(name=tensor.name, datatype=tensor.dtype.value, shape=[batch, *tensor.dims])
            response.raw_output_contents.append(bytes(batch * tensor.smallest_bytes))
        return response
