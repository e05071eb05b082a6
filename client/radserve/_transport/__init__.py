"""The only user of gRPC: connections to Triton, and its errors made ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve._codec._flow import Infer, IsReady, ListModels, ReadConfig
from radserve._transport._aio import AsyncTransport
from radserve._transport._sync import SyncTransport
from radserve.options import ClientOptions

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2, service_pb2

    from radserve.options import TLS

__all__ = ["AsyncTransport", "SyncTransport", "Transport"]


class Transport:
    """Calls to one server, without flows."""

    def __init__(self, url: str, *, tls: TLS | None, insecure: bool) -> None:
        self._sync = SyncTransport(ClientOptions(endpoints=(url,), tls=tls, insecure=insecure))

    def close(self) -> None:
        self._sync.close()

    @property
    def is_closed(self) -> bool:
        return self._sync.is_closed

    def infer(self, request: service_pb2.ModelInferRequest, *, timeout_s: float) -> service_pb2.ModelInferResponse:
        return self._sync.call(Infer(request=request), timeout_s=timeout_s).message

    def model_config(self, name: str, *, timeout_s: float) -> model_config_pb2.ModelConfig:
        return self._sync.call(ReadConfig(model=name), timeout_s=timeout_s).message

    def model_names(self, *, timeout_s: float) -> list[str]:
        names: list[str] = self._sync.call(ListModels(), timeout_s=timeout_s).message
        return names

    def is_ready(self, *, timeout_s: float) -> bool:
        return bool(self._sync.call(IsReady(), timeout_s=timeout_s).message)
