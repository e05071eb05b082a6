"""What an asynchronous client and its models share: the connections, and what carries out a flow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from radserve._codec import (
    Ask,
    Calls,
    Join,
    Prepare,
    Sleep,
    coalescer_of,
    is_prepared_at_once,
    prepare_step,
    told,
    work_of,
)
from radserve._transport import AsyncTransport
from radserve.aio._meeting import Meeting
from radserve.errors import RadserveError, ServerError
from radserve.telemetry import request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from radserve._codec import CallOptions, Flow, Prepared, Reply
    from radserve.options import ClientOptions

T = TypeVar("T")
Preparing: TypeAlias = "Callable[[Prepare], Awaitable[Prepared]]"


async def prepare_in_thread(step: Prepare) -> Prepared:
    """Read and preprocess where the event loop does not wait for it."""
    if is_prepared_at_once(step):
        return prepare_step(step)
    return await asyncio.to_thread(prepare_step, step)


async def run_async(
    flow: Flow[T], transport: AsyncTransport, prepare: Preparing = prepare_in_thread, meeting: Meeting | None = None
) -> T:
    """Carry out the steps of a flow, one after the other; a cancelled task cancels the step it is at.

    Args:
        flow: Says what to do.
        transport: Makes its calls.
        prepare: Makes arrays of its source.
        meeting: Where its inferences meet others.
    """
    answer: Any = None
    failure: RadserveError | None = None
    try:
        while True:
            step = flow.send(answer) if failure is None else flow.throw(failure)
            answer = failure = None
            try:
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    continue
                with told(step):
                    if isinstance(step, Ask):
                        answer = await transport.call(step.call, timeout_s=step.timeout_s)
                    elif isinstance(step, Prepare):
                        answer = await prepare(step)
                    elif isinstance(step, Join):
                        assert meeting is not None  # noqa: S101 - a call without has no such steps
                        answer = await meeting.infer(step.item)
                    else:
                        await asyncio.to_thread(step.write)
            except ServerError as error:
                failure = error.with_traceback(None)  # see below
            except RadserveError as error:
                failure = error
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        flow.close()
        del failure  # a frame that holds an error in whose traceback it stands would hold the pixels, too


class AsyncSession:
    """The connections of one client, and its options. Made by ``AsyncClient``, for one event loop.

    Attributes:
        options: The client's.
        transport: Makes its calls.
        coalescer: Where the inferences of its calls meet; None sends each alone.
    """

    def __init__(self, options: ClientOptions) -> None:
        self._calls = Calls(options)
        self.options = options
        self.transport = AsyncTransport(options)
        self.coalescer = coalescer_of(options)
        self._meeting = None if self.coalescer is None else Meeting(self.coalescer, self._attempt)

    @property
    def url(self) -> str:
        """Where it is connected to."""
        return ", ".join(self.options.endpoints)

    def call(self, timeout_s: float | None, **given: Any) -> CallOptions:  # noqa: ANN401 - CallOptions' attributes
        """The options of a call that starts now; see ``Calls.start``."""
        return self._calls.start(timeout_s, is_closed=self.transport.is_closed, **given)

    async def run(self, flow: Flow[T], prepare: Preparing = prepare_in_thread, *, model: str | None = None) -> T:
        """Carry out a flow; ``model`` is what it asks, if it asks one."""
        with request(work_of(flow), model=model):
            return await run_async(flow, self.transport, prepare, self._meeting)

    async def _attempt(self, ask: Ask) -> Reply:
        return await self.transport.call(ask.call, timeout_s=ask.timeout_s)

    async def close(self) -> None:
        """Close the connections, unless they are another process's."""
        if not self._calls.is_forked:
            await self.transport.close()
