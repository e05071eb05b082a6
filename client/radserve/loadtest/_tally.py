"""What a worker counts in the window that it is in."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from radserve.loadtest._figures import ErrorCount
from radserve.loadtest._histogram import Histogram
from radserve.loadtest._messages import AFTER, WARM_UP, Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve.loadtest._messages import Start

_HELD = 8192  # times that are kept before they go to the histogram, which takes many at once for little


class Tally:
    """Counts answers by the window that they came in, and hands over a record when it is over.

    Args:
        start: When sending and measuring begin.
        window_s: Length of a window.
        emit: Takes each record.
        due_until: How many requests were due until a time; None where they are due when they are sent.
        busy_s: Time that the event loop has been at work.
    """

    def __init__(
        self,
        start: Start,
        window_s: float,
        emit: Callable[[Record], None],
        *,
        due_until: Callable[[float], int] | None,
        busy_s: Callable[[], float],
    ) -> None:
        self._measuring, self._window_s = start.measuring, window_s
        self._emit, self._due_until, self._busy_s = emit, due_until, busy_s
        self._index = WARM_UP if start.warm_up < start.measuring else 0
        self._begin = start.warm_up
        self.edge = start.measuring + (0 if self._index == WARM_UP else window_s)
        self._due_before = self._sent_in_all = self._ended_in_all = 0
        self._cpu_before, self._busy_before = time.process_time(), busy_s()
        self._clear()

    def _clear(self) -> None:
        self._latencies, self._punctual, self._lags = Histogram(), Histogram(), Histogram()
        self._held_latencies: list[float] = []
        self._held_punctual: list[float] = []
        self._held_lags: list[float] = []
        self._sent = self._failed = 0
        self._failures: Counter[str] = Counter()
        self._messages: dict[str, str] = {}

    def sent(self, lag_s: float | None) -> None:
        """Count a request, and how late it was if nothing but the worker itself held it back."""
        self._sent += 1
        if lag_s is not None:
            self._held_lags.append(lag_s)
            if len(self._held_lags) >= _HELD:
                self._flush()

    def answered(self, now: float, latency_s: float, lag_s: float | None = None) -> None:
        """Count a good answer that came now, and how late the worker itself had sent the request."""
        if now >= self.edge:
            self.roll(now)
        self._held_latencies.append(latency_s)
        if lag_s is not None:
            self._held_punctual.append(latency_s - lag_s)
        if len(self._held_latencies) >= _HELD:
            self._flush()

    def failed(self, now: float, kind: str, message: str) -> None:
        """Count a failure that came now."""
        self.roll(now)
        self._failed += 1
        self._failures[kind] += 1
        self._messages.setdefault(kind, message)

    def roll(self, now: float) -> None:
        """Hand over what is over."""
        while now >= self.edge:
            self._hand_over(self.edge, is_whole=True)
            self._index += 1
            self._begin = self.edge
            self.edge = self._measuring + (self._index + 1) * self._window_s

    def end(self, now: float) -> None:
        """Hand over what has been counted in the window that is not over; what comes from here on counts in none."""
        self.roll(now)
        self._hand_over(now, is_whole=False)
        self._index, self._begin, self.edge = AFTER, now, math.inf

    def _flush(self) -> None:
        self._latencies.record(self._held_latencies)
        self._punctual.record(self._held_punctual)
        self._lags.record(self._held_lags)
        self._held_latencies.clear()
        self._held_punctual.clear()
        self._held_lags.clear()

    def _hand_over(self, end: float, *, is_whole: bool) -> None:
        self._flush()
        cpu, busy = time.process_time(), self._busy_s()
        self._sent_in_all += self._sent
        self._ended_in_all += self._latencies.n + self._failed
        if self._index == AFTER:
            due_in_all = self._due_before
        else:
            due_in_all = self._sent_in_all if self._due_until is None else self._due_until(end)
        self._emit(
            Record(
                index=self._index,
                begin=self._begin,
                seconds=end - self._begin,
                is_whole=is_whole,
                due=due_in_all - self._due_before,
                sent=self._sent,
                requests=self._latencies.n,
                failed=self._failed,
                waiting=max(0, due_in_all - self._ended_in_all),
                latencies=self._latencies.encode(),
                punctual=self._punctual.encode(),
                lags=self._lags.encode(),
                cpu_s=cpu - self._cpu_before,
                busy_s=busy - self._busy_before,
                failures=[
                    ErrorCount(type=kind, count=count, message=self._messages[kind])
                    for kind, count in self._failures.items()
                ],
            )
        )
        self._due_before, self._cpu_before, self._busy_before = due_in_all, cpu, busy
        self._clear()
