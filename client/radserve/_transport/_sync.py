"""The transport of the synchronous client."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from radserve._transport._calls import Failure
from radserve._transport._core import Core, Send

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve._codec._flow import Call, Reply
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

    def call(self, step: Call, *, timeout_s: float, respond: Callable[[Send], Any] = Send.start) -> Reply:
        """Make one attempt of a call.

        Args:
            step: What to ask.
            timeout_s: The longest that it may take.
            respond: Makes the call and waits for its response.

        Raises:
            ServerError: It did not succeed; ``retry`` says whether it may be made again.
            ClientClosedError: The client was closed, or belongs to another process; or the call was cancelled.
            InputError: The request is larger than a message may be.
        """
        attempt = self._core.attempt(step, timeout_s)
        try:
            send = next(attempt)
            while True:
                send = attempt.send(self._response(send, respond))
        except StopIteration as end:
            reply: Reply = end.value
            return reply
        finally:
            attempt.close()
            for channel in self._core.drained():
                channel.close()

    def _response(self, send: Send, respond: Callable[[Send], Any]) -> Any:  # noqa: ANN401 - a message of its method
        # What gRPC raises ends here: it quotes the server's text, which may quote a report.
        try:
            return respond(send)
        except grpc.FutureCancelledError:  # nobody waits for it any more
            failure = None
        except grpc.RpcError as error:
            failure = Failure.of(error)
        except ValueError:  # gRPC's word for a channel that was closed meanwhile
            if not self.is_closed:
                raise
            failure = None
        if failure is None or self.is_closed:
            raise self._core.closed_error()
        return failure


class Cancellable:
    """A transport whose calls another thread can end.

    Args:
        transport: Makes the calls.
    """

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._calls: set[grpc.Future[Any]] = set()
        self._is_cancelled = False

    def call(self, step: Call, *, timeout_s: float) -> Reply:
        """As ``SyncTransport.call``; a cancelled one raises ClientClosedError."""
        return self._transport.call(step, timeout_s=timeout_s, respond=self._respond)

    def cancel(self) -> None:
        """End all calls, now and later."""
        with self._lock:
            self._is_cancelled = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def _respond(self, send: Send) -> Any:  # noqa: ANN401 - a message of its method
        with self._lock:
            if self._is_cancelled:
                raise grpc.FutureCancelledError
            call = send.start_future()
            self._calls.add(call)
        try:
            return call.result()
        finally:
            with self._lock:
                self._calls.discard(call)
