"""The only user of gRPC: a channel to Triton, and its errors made ours."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from radserve._transport._channel import MAX_MESSAGE_BYTES, open_channel
from radserve._transport._errors import translate
from radserve.errors import ClientClosedError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tritonclient.grpc import model_config_pb2

    from radserve.errors import ServerError
    from radserve.options import TLS

__all__ = ["MAX_MESSAGE_BYTES", "Transport"]

Q = TypeVar("Q")
R = TypeVar("R")


class Transport:
    """Calls to one server; thread-safe.

    Args:
        url: ``host:port`` of Triton's gRPC service.
        tls: Certificates; None means plain text.
        insecure: Allow plain text to a host that is not loopback.
    """

    def __init__(self, url: str, *, tls: TLS | None, insecure: bool) -> None:
        self._channel = open_channel(url, tls=tls, insecure=insecure)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._url = url
        self._closed = threading.Event()

    def close(self) -> None:
        """Cancel what is in flight and close the connection."""
        self._closed.set()
        self._channel.close()

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed.is_set()

    def infer(self, request: service_pb2.ModelInferRequest, *, timeout_s: float) -> service_pb2.ModelInferResponse:
        """Run one inference.

        Raises:
            ServerError: One of its kinds, as gRPC's code and Triton's text say.
            InputError: The request is larger than a message may be.
        """
        size = request.ByteSize()
        if size > MAX_MESSAGE_BYTES:
            msg = f"the request has {size >> 20} MiB, a message at most {MAX_MESSAGE_BYTES >> 20} MiB: send fewer items"
            raise InputError(msg)
        return self._call(
            self._stub.ModelInfer,
            request,
            timeout_s,
            model=request.model_name,
            version=int(request.model_version),
            request_id=request.id,
        )

    def model_config(self, name: str, *, timeout_s: float) -> model_config_pb2.ModelConfig:
        """The configuration of a model's newest version."""
        request = service_pb2.ModelConfigRequest(name=name)
        return self._call(self._stub.ModelConfig, request, timeout_s, model=name).config

    def model_names(self, *, timeout_s: float) -> list[str]:
        """Names of all loaded models, steps included."""
        request = service_pb2.RepositoryIndexRequest(ready=True)
        index = self._call(self._stub.RepositoryIndex, request, timeout_s)
        return sorted({model.name for model in index.models})

    def is_ready(self, *, timeout_s: float) -> bool:
        """Whether the server says that it takes requests."""
        try:
            return bool(self._stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=timeout_s).ready)
        except (grpc.RpcError, ValueError):  # gRPC says ValueError of a channel that was closed meanwhile
            return False

    def _call(
        self,
        method: Callable[..., R],
        request: Q,
        timeout_s: float,
        *,
        model: str | None = None,
        version: int | None = None,
        request_id: str | None = None,
    ) -> R:
        closed = "the client was closed: make a new Client"
        if self.is_closed:
            raise ClientClosedError(closed)
        failure: ServerError
        try:
            return method(request, timeout=timeout_s)
        except ValueError:  # gRPC's word for a channel that was closed meanwhile
            if not self.is_closed:
                raise
            raise ClientClosedError(closed) from None
        except grpc.RpcError as error:
            if self.is_closed:
                raise ClientClosedError(closed) from None
            failure = translate(error, url=self._url, model=model, version=version, request_id=request_id)
        # Raised outside the handler: gRPC's exception quotes the server's text, which may quote a report.
        raise failure
