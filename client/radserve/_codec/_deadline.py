"""One time budget over everything that a call does."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from radserve.errors import DeadlineExceededError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_S = 86_400.0


class Deadline:
    """How long a call may still take."""

    def __init__(self, timeout_s: float) -> None:
        try:
            seconds = math.nan if isinstance(timeout_s, str | bytes) else float(timeout_s)
        except (TypeError, ValueError):
            seconds = math.nan
        if not 0 < seconds <= _LONGEST_S:
            msg = "timeout_s must be a finite number of seconds above 0, at most one day"
            raise InputError(msg)
        self.timeout_s = seconds
        self._end = time.monotonic() + self.timeout_s

    def remaining_s(self, model: str | None = None) -> float:
        """Seconds left.

        Raises:
            DeadlineExceededError: None.
        """
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            msg = f"the {self.timeout_s:g} s allowed are over: allow more with timeout_s (--timeout)"
            raise DeadlineExceededError(msg, model=model)
        return remaining

    def remaining_or_zero_s(self) -> float:
        """Seconds left, 0 where there are none."""
        return max(0.0, self._end - time.monotonic())

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count the time that something takes."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - begin
