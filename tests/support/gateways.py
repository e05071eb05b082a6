"""A gRPC gateway in front of a server that wants a bearer token, as hospitals' gateways do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Gateway(grpc.GenericRpcHandler):  # type: ignore[type-arg] # takes none when run
    """Hands calls on to a server, byte by byte, if they carry the token.

    Args:
        channel: To the server.
        token: What a call must carry.

    Attributes:
        url: ``host:port``.
        token: As given; may be changed.
        tokens: What calls carried, in their order.
        on_refusal: Called before a call is refused.
    """

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._channel = channel
        self.url = ""
        self.token = token
        self.tokens: list[str | None] = []
        self.on_refusal: Callable[[], object] = lambda: None

    def service(self, handler_call_details: Any) -> Any:
        """What answers a call."""
        method = self._channel.unary_unary(handler_call_details.method, bytes, bytes)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            metadata = {key: str(value) for key, value in context.invocation_metadata()}
            self.tokens.append(metadata.get("authorization"))
            if self.tokens[-1] != f"Bearer {self.token}":
                self.on_refusal()
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "give a token")
            try:
                return bytes(method(request, timeout=context.time_remaining()))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")
                raise

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def gateway(target: str, token: str) -> Iterator[Gateway]:
    """A gateway to a server."""
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(4) as pool:
        handler = Gateway(channel, token)
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handler,))
        handler.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield handler
        finally:
            server.stop(None).wait()
