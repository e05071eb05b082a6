"""Where the inferences of concurrent tasks meet, to be sent in few requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from radserve.telemetry import under

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from radserve._codec import Answer, Ask, Coalescer, Group, Item, Reply


class Meeting:
    """Carries out what a coalescer decides, in one event loop.

    Args:
        coalescer: Decides which inferences are sent together, and when.
        call: Makes one attempt of a call.
    """

    def __init__(self, coalescer: Coalescer, call: Callable[[Ask], Awaitable[Reply]]) -> None:
        self._coalescer = coalescer
        self._call = call
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._sending: dict[Item, tuple[Group, asyncio.Task[None]]] = {}

    async def infer(self, item: Item) -> Answer:
        """The answer to an inference; a cancelled task leaves the others theirs.

        Raises:
            RadserveError: What its request failed with.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        item.waiter = answered
        self._coalescer.add(item)
        if self._soon is None:  # those who come in the same turn of the loop go along
            self._soon = loop.call_soon(self._send_due)
        try:
            answer = await answered
        except asyncio.CancelledError:
            await self._leave(item)
            raise
        except Exception:
            item.waiter = None  # else an error would hold itself, by the frame that holds the item, and the pixels
            raise
        return answer

    async def _leave(self, item: Item) -> None:
        """End a request that nobody waits for any more."""
        if self._coalescer.discard(item) or item not in self._sending:
            return
        group, task = self._sending[item]
        if all(one.waiter.cancelled() for one in group.items):
            task.cancel()
            await asyncio.wait([task])

    def _send_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._soon = None
        while (group := self._coalescer.take(_is_wanted)) is not None:
            task = loop.create_task(self._send(group))
            for item in group.items:
                self._sending[item] = group, task
        due_s = self._coalescer.due_s()
        if due_s is not None and self._later is None:
            self._later = loop.call_later(due_s, self._send_late)

    def _send_late(self) -> None:
        self._later = None
        self._send_due()

    async def _send(self, group: Group) -> None:
        is_answered = False
        try:
            ask = group.ask()
            with under([item.span for item in group.items]):
                reply = await self._call(ask)
            answers = group.answers(reply)
        except asyncio.CancelledError:
            for item in group.items:
                item.waiter.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is those who wait that are to know
            for item in group.items:
                if not item.waiter.done():
                    item.waiter.set_exception(group.error_of(item, error))
        else:
            is_answered = True
            for item, answer in zip(group.items, answers, strict=True):
                if not item.waiter.done():
                    item.waiter.set_result(answer)
        finally:
            for item in group.items:
                del self._sending[item]
            self._coalescer.finish(group, is_answered=is_answered)
            self._send_due()


def _is_wanted(item: Item) -> bool:
    return not item.waiter.cancelled()
