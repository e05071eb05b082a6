"""Whether a process's memory grows with its work: a robust line through what it had after so many requests."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = os.sysconf("SC_PAGE_SIZE")
_QUANTILE = 2.576  # of the normal distribution, for 99 % on both sides together


def resident_bytes(pid: int) -> int:
    """The memory that a process has in RAM, all kinds together."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


class Growth(NamedTuple):
    """Bytes per request, with the ends of a 99 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} B per request (99 %: {self.low:.1f} to {self.high:.1f})"


def growth(requests: Sequence[int], resident: Sequence[int]) -> Growth:
    """The slope after Theil and Sen: the median of those between all pairs; its interval is Sen's (JASA 1968).

    A few samples far from the others, as where an allocator takes or gives back much at once, hardly move it.
    """
    n = len(requests)
    first, second = np.triu_indices(n, 1)
    x, y = np.asarray(requests, float), np.asarray(resident, float)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    half = _QUANTILE * math.sqrt(n * (n - 1) * (2 * n + 5) / 18) / 2
    low, high = math.floor(len(slopes) / 2 - half), math.ceil(len(slopes) / 2 + half)
    return Growth(float(np.median(slopes)), float(slopes[max(0, low)]), float(slopes[min(len(slopes) - 1, high)]))
