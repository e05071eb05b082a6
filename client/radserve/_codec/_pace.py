"""Whether sharing requests pays, by what is answered in a second with and without."""

from __future__ import annotations

import math
from collections import deque

_WINDOW_ROWS, _WINDOW_REQUESTS = 32, 4
_WINDOWS = 3  # the fastest of which counts: what else the machine does only adds to it
_LONGEST_S = 0.25  # then one is enough: of a slow model, the wrong way is not gone for long
_GAIN = 0.9
_SLOW_S = 0.02  # for a row: beside that, a request costs nothing
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0
_MANY = 2


class Pace:
    """How fast one model answers one client, if requests are shared and if not; without I/O.

    What a model gains by batches differs: small networks, and large ones on a GPU, take for
    eight rows hardly longer than for one, so that sharing answers several times as many. Where
    eight rows take eight times as long, to share them is to leave other instances idle. So both
    ways are gone in turn, for some 100 rows, and the better one is kept; the other one is tried
    again after 2 s, later after up to a minute, and as soon as twice as many calls wait.

    Attributes:
        shares: Whether requests are to be shared now.
    """

    def __init__(self) -> None:
        self.shares = True
        self._best = True
        self._taken_s: dict[bool, float] = {}
        self._windows_s: deque[float] = deque(maxlen=_WINDOWS)
        self._under_way = 0
        self._since = 0.0
        self._switches = 0
        self._pause_s = _SHORTEST_PAUSE_S
        self._next = -math.inf
        self._most_compared = 0
        self._rows, self._requests, self._busy_s, self._most = 0, 0, 0.0, 0

    def sent(self, rows: int, now: float, *, waiting: int) -> int:
        """A request of so many rows was sent, while so many others wait; gives by what ``ended`` knows it."""
        if not self._under_way:
            self._since = now
        self._under_way += rows
        self._most = max(self._most, self._under_way + waiting)
        return self._switches

    def ended(self, sent: int, rows: int, now: float, *, is_answered: bool) -> None:
        """A request was answered, or failed."""
        self._under_way -= rows
        self._busy_s += now - self._since
        self._since = now
        self._rows += rows
        self._requests += 1
        if not is_answered or sent != self._switches:  # a window has only what went the one way
            self._begin_window()
        elif self._busy_s >= _LONGEST_S or (self._rows >= _WINDOW_ROWS and self._requests >= _WINDOW_REQUESTS):
            is_long, most = self._busy_s >= _LONGEST_S, self._most
            self._windows_s.append(self._busy_s / self._rows)
            self._begin_window()
            if most >= _MANY and (is_long or len(self._windows_s) == _WINDOWS):
                self._judge(now, most)

    def _judge(self, now: float, most: int) -> None:
        """Choose which way to go on; at most so many calls waited at the same time."""
        taken_s = self._taken_s[self.shares] = min(self._windows_s)
        if len(self._taken_s) == 1:
            self._switch()
            return
        best = self._taken_s[True] < _GAIN * self._taken_s[False]
        was_trial = self.shares is not self._best
        if best is not self._best:
            self._pause_s = _SHORTEST_PAUSE_S
        elif was_trial:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._best = best
        if was_trial:
            self._most_compared = most
            self._next = now + self._pause_s
        can_gain = self.shares or taken_s < _SLOW_S
        if self.shares is not best or (can_gain and (now >= self._next or most >= _MANY * self._most_compared)):
            self._switch()

    def _begin_window(self) -> None:
        self._rows, self._requests, self._busy_s, self._most = 0, 0, 0.0, self._under_way

    def _switch(self) -> None:
        self.shares = not self.shares
        self._switches += 1
        self._windows_s.clear()
