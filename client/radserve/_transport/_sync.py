"""The transport of the synchronous client."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from radserve._transport._calls import Failure
from radserve._transport._core import Core

if TYPE_CHECKING:
    from radserve._codec._flow import Call, Reply
    from radserve._transport._core import Send
    from radserve.options import ClientOptions


class SyncTransport:
    """Calls to Triton; thread-safe.

    Args:
        options: Where to and how.

    Raises:
        InputError: An address is malformed, or would carry patient data as plain text.
    """

    def __init__(self, options: ClientOptions) -> None:
        self._core = Core(options, grpc)

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._core.is_closed

    def close(self) -> None:
        """Cancel what is in flight and close the connections."""
        with suppress(grpc.RpcError, ValueError):  # what is left then, the next client removes
            for send in self._core.farewell():
                send.start()
        for channel in self._core.close():
            channel.close()

    def call(self, step: Call, *, timeout_s: float) -> Reply:
        """Make one attempt of a call.

        Args:
            step: What to ask.
            timeout_s: The longest that it may take.

        Raises:
            ServerError: It did not succeed; ``retry`` says whether it may be made again.
            ClientClosedError: The client was closed, or belongs to another process.
            InputError: The request is larger than a message may be.
        """
        attempt = self._core.attempt(step, timeout_s)
        try:
            send = next(attempt)
            while True:
                send = attempt.send(self._response(send))
        except StopIteration as end:
            reply: Reply = end.value
            return reply
        finally:
            attempt.close()
            for channel in self._core.drained():
                channel.close()

    def _response(self, send: Send) -> Any:  # noqa: ANN401 - a message of its method
        # What gRPC raises ends here: it quotes the server's text, which may quote a report.
        try:
            return send.start()
        except grpc.RpcError as error:
            failure = Failure.of(error)
        except ValueError:  # gRPC's word for a channel that was closed meanwhile
            if not self.is_closed:
                raise
            failure = None
        if failure is None or self.is_closed:
            raise self._core.closed_error()
        return failure
