"""How urgent a call is, and how often it is made again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from radserve.errors import InputError


class Priority(IntEnum):
    """How urgent a request is; the value is Triton's priority level (1 is highest).

    Matches DICOM's Requested Procedure Priority (0040,1003) and Scheduled
    Procedure Step Priority (0074,1200): STAT and HIGH, MEDIUM, ROUTINE and LOW.
    """

    STAT = 1
    URGENT = 2
    ROUTINE = 3


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a call that did not succeed is made again, where that is safe.

    Attributes:
        attempts: At most so many, the first one included; 1 never repeats one.
        first_backoff_s: Longest pause before the second attempt; it doubles from then on,
            and each pause is drawn from 0 to it ("full jitter").
        longest_backoff_s: The pauses grow no longer.
        retry_overload: Whether a full queue is tried again, too.
    """

    attempts: int = 3
    first_backoff_s: float = 0.1
    longest_backoff_s: float = 2.0
    retry_overload: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no schedule."""
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            msg = "attempts must be a whole number from 1: the first attempt counts"
            raise InputError(msg)
        if not 0 < self.first_backoff_s <= self.longest_backoff_s < math.inf:
            msg = "give first_backoff_s above 0 and longest_backoff_s no shorter, in seconds"
            raise InputError(msg)
