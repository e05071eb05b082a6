"""Latencies in constant memory: an HdrHistogram of 1 us to 1 h, values to 0.1 %."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from radserve.errors import MissingExtraError

try:
    from hdrh.histogram import HdrHistogram
except ImportError:
    _EXTRA = "loadtest"
    raise MissingExtraError(_EXTRA, "the load tester") from None

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LARGEST_US = 3_600_000_000
_DIGITS = 3
_US = 1e6


class Histogram:
    """Counts of times; adding two gives the histogram of all their times."""

    def __init__(self) -> None:
        self._hdr: Any = HdrHistogram(1, _LARGEST_US, _DIGITS)

    @property
    def n(self) -> int:
        """Times recorded."""
        return int(self._hdr.total_count)

    def record(self, seconds: Sequence[float]) -> None:
        """Count times; below 1 us as 1 us, above 1 h as 1 h."""
        if not seconds:
            return
        us = np.rint(np.asarray(seconds) * _US).clip(1, _LARGEST_US).astype(np.int64)
        # As HdrHistogram.record_value does for one: the bucket is the power of 2, the rest its linear part.
        buckets = np.frexp(us | self._hdr.sub_bucket_mask)[1] - self._hdr.sub_bucket_half_count_magnitude - 1
        places = ((buckets + 1) << self._hdr.sub_bucket_half_count_magnitude) + (us >> buckets)
        np.add.at(self._counts(), places - self._hdr.sub_bucket_half_count, 1)
        self._hdr.total_count += len(us)
        self._hdr.min_value = min(self._hdr.min_value, int(us.min()))
        self._hdr.max_value = max(self._hdr.max_value, int(us.max()))

    def add(self, other: Histogram) -> None:
        """Count all that another one counts."""
        if other.n:  # HdrHistogram would take the least value of an empty one
            self._hdr.add(other._hdr)

    def encode(self) -> bytes:
        """HdrHistogram's V2 compressed encoding in base64, which its tools in other languages read."""
        return cast("bytes", self._hdr.encode())

    @classmethod
    def decode(cls, encoded: bytes | str) -> Histogram:
        """What ``encode`` wrote."""
        histogram = cls()
        histogram._hdr.decode_and_add(encoded)
        return histogram

    def at_ranks(self, ranks: Sequence[int]) -> list[float]:
        """The times, in seconds, of these places in their order, the shortest at 1: the middle of their buckets."""
        counts = np.cumsum(self._counts())
        return [self._middle_us(int(np.searchsorted(counts, rank))) / _US for rank in ranks]

    def mean(self) -> float:
        """Mean time in seconds; 0 without any."""
        seconds, counts = self.filled()
        return float((seconds * counts).sum() / max(1, self.n))

    def filled(self) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
        """The times in seconds, in order, that were counted, and how often each."""
        counts = self._counts()
        places = np.flatnonzero(counts)
        return np.asarray([self._middle_us(int(place)) for place in places]) / _US, counts[places]

    def _middle_us(self, place: int) -> float:
        least = int(self._hdr.get_value_from_index(place))
        return (least + int(self._hdr.get_highest_equivalent_value(least))) / 2

    def _counts(self) -> NDArray[np.uint64]:
        """The histogram's own counters, not a copy."""
        return np.ctypeslib.as_array(self._hdr.counts)
