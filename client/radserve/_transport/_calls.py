"""What each step of a flow is in gRPC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from radserve._codec._flow import Infer, IsReady, ListModels, ReadConfig, ReadStatistics
from radserve._codec._plain import Plain
from radserve._codec._wire import Request

if TYPE_CHECKING:
    from typing_extensions import Self

    from radserve._codec._flow import Call


class Rpc(Plain, frozen=True, kw_only=True):
    """A call of Triton's service.

    Attributes:
        method: Its name.
        request: Its message.
        model: The model it names, if any.
        version: The version it names, if any.
        request_id: The id in it, if any.
    """

    method: str
    request: Any
    model: str | None = None
    version: int | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Failure:
    """How a call failed, by gRPC's word."""

    code: grpc.StatusCode
    details: str = field(repr=False)  # may quote the input

    @classmethod
    def of(cls, error: grpc.RpcError) -> Self:
        """What gRPC raised."""
        if isinstance(error, grpc.Call):
            return cls(error.code(), error.details() or "")
        return cls(grpc.StatusCode.UNKNOWN, "")


def stub_on(channel: Any) -> Any:  # noqa: ANN401 - of a generated class
    """Triton's service on a channel of grpc or grpc.aio; its ModelInfer takes a Request, too, and gives bytes."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    stub.ModelInfer = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=_encoded,
    )
    return stub


def _encoded(request: Request | service_pb2.ModelInferRequest) -> bytes:
    return request.encoded() if isinstance(request, Request) else request.SerializeToString()


READY = Rpc(method="ServerReady", request=service_pb2.ServerReadyRequest())


def to_rpc(step: Call) -> Rpc:
    """The call that a step asks for."""
    if isinstance(step, Infer):
        request = step.request
        return Rpc(
            method="ModelInfer",
            request=request,
            model=request.model,
            version=request.version,
            request_id=request.id,
        )
    if isinstance(step, ReadConfig):
        request = service_pb2.ModelConfigRequest(name=step.model)
        return Rpc(method="ModelConfig", request=request, model=step.model)
    if isinstance(step, ReadStatistics):
        statistics = service_pb2.ModelStatisticsRequest(name=step.model)
        return Rpc(method="ModelStatistics", request=statistics, model=step.model)
    if isinstance(step, ListModels):
        return Rpc(method="RepositoryIndex", request=service_pb2.RepositoryIndexRequest(ready=True))
    return READY


def read(step: Call, response: Any) -> Any:  # noqa: ANN401 - a message of its step
    """What a step's flow is sent."""
    if isinstance(step, ReadConfig):
        return response.config
    if isinstance(step, ListModels):
        return sorted({model.name for model in response.models})
    if isinstance(step, IsReady):
        return bool(response.ready)
    if isinstance(step, ReadStatistics):
        return list(response.model_stats)
    return response
