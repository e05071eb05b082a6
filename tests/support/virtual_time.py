"""An event loop whose clock jumps to the next timer instead of waiting for it, and a server that knows its answers."""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any

from radserve._codec._flow import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class _Jumping(selectors.SelectSelector):
    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen again"
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An hour takes as long as what happens in it."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds, from 1000 on."""
        return self._jumping.now

    def block(self, seconds: float) -> None:
        """Let time pass in which nothing else runs."""
        self._jumping.now += seconds


def run_virtual(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on such a loop."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


class KnownServer:
    """A transport to a server that answers any number of requests, each after a time of a known distribution.

    Args:
        service_s: The time of the n-th request.
        stall: Begin and end of a time in which nothing is answered.
        fails: Whether the n-th request fails, and how.
    """

    def __init__(
        self,
        service_s: Callable[[int], float],
        *,
        stall: tuple[float, float] = (math.inf, math.inf),
        fails: Callable[[int], Exception | None] = lambda _: None,
    ) -> None:
        self._service_s, self._stall, self._fails = service_s, stall, fails
        self.count = 0

    def answered_at(self, number: int, sent: float) -> float:
        """When the n-th request is answered."""
        done = sent + self._service_s(number)
        begin, end = self._stall
        return end if begin <= done < end else done

    async def call(self, _: object, *, timeout_s: float) -> Reply:
        """Answer a request."""
        assert timeout_s > 0
        number, self.count = self.count, self.count + 1
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(self.answered_at(number, now) - now)
        if error := self._fails(number):
            raise error
        return Reply(message=None, endpoint="a:1")
