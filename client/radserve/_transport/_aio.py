"""The transport of the asynchronous client."""

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


class AsyncTransport:
    """Calls to Triton from one event loop.

    Args:
        options: Where to and how.

    Raises:
        InputError: An address is malformed, or would carry patient data as plain text.
    """

    def __init__(self, options: ClientOptions) -> None:
        self._core = Core(options, grpc.aio)

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._core.is_closed

    async def close(self) -> None:
        """Cancel what is in flight and close the connections."""
        with suppress(grpc.RpcError, grpc.aio.UsageError):  # what is left then, the next client removes
            for send in self._core.farewell():
                await send.start()
        for channel in self._core.close():
            await channel.close()

    async def call(self, step: Call, *, timeout_s: float) -> Reply:
        """Make one attempt of a call; cancelling the task cancels the call at the server, too.

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
                send = attempt.send(await self._response(send))
        except StopIteration as end:
            reply: Reply = end.value
            return reply
        finally:
            attempt.close()
            for channel in self._core.drained():
                await channel.close()

    async def _response(self, send: Send) -> Any:  # noqa: ANN401 - a message of its method
        try:
            call = send.start()
        except grpc.aio.UsageError:  # of a channel that was closed meanwhile
            call = None
        if call is None:
            raise self._core.closed_error()
        try:
            # Unlike the response, the code is told, not raised, of a call that close() cancelled:
            # a CancelledError here is the task's own.
            code = await call.code()
        finally:
            if not call.done():
                call.cancel()
        if code is grpc.StatusCode.OK:
            return await call
        if self.is_closed:
            raise self._core.closed_error()
        return Failure(code, await call.details() or "")
