"""What can be said of a sample: ranks of percentiles, intervals, agreement. Pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from radserve.loadtest._figures import Estimate, Percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve.loadtest._histogram import Histogram

CONFIDENCE = 0.95
# Student's 97.5 % quantile for 1 to 30 degrees of freedom; from there on Fisher's expansion is exact to 0.1 %.
_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
NORMAL = 1.959964


def rank_of(n: int, percent: float) -> int:
    """Which of n values in order, from 1, is the percentile: so many percent do not exceed it."""
    return min(n, max(1, math.ceil(n * percent / 100 - 1e-9)))


def rank_interval(n: int, percent: float) -> tuple[int | None, int | None]:
    """Ranks between which the percentile lies with 95 % confidence, whatever the distribution.

    How many of n independent values lie below the true percentile is binomial
    (Conover, Practical Nonparametric Statistics, 3.2).

    Returns:
        The lower and the upper rank, from 1; None where n is too small for one.
    """
    if n < 1:
        return None, None
    chance = percent / 100
    mean, deviation = n * chance, math.sqrt(n * chance * (1 - chance))
    first, last = max(0, math.floor(mean - 10 * deviation - 50)), min(n, math.ceil(mean + 10 * deviation + 50))
    counts = np.arange(first, last)
    # The logarithm of each probability through the one before it; what lies outside is nothing.
    log_ratios = np.log((n - counts) / (counts + 1)) + math.log(chance / (1 - chance))
    logs = np.concatenate(([0.0], np.cumsum(log_ratios)))
    below = np.cumsum(np.exp(logs - logs.max()))
    below /= below[-1]
    tail = (1 - CONFIDENCE) / 2
    low = first + int(np.searchsorted(below, tail))
    high = first + int(np.searchsorted(below, 1 - tail)) + 1
    return low if low >= 1 else None, high if high <= n else None


def percentile(histogram: Histogram, percent: float) -> Percentile:
    """A percentile of a histogram that holds something, with its interval."""
    n = histogram.n
    low, high = rank_interval(n, percent)
    value, at_low, at_high = histogram.at_ranks([rank_of(n, percent), low or 1, high or n])
    estimate = Estimate(value=value, low=at_low if low else None, high=at_high if high else None)
    return Percentile(percent=percent, latency_s=estimate, n=n)


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean of independent values, with Student's 95 % interval."""
    mean = math.fsum(values) / len(values)
    freedom = len(values) - 1
    if not freedom:
        return Estimate(value=mean)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / freedom / len(values))
    factor = student(freedom)
    return Estimate(value=mean, low=mean - factor * spread, high=mean + factor * spread)


def student(freedom: int) -> float:
    """How many standard errors a 95 % interval goes to each side."""
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else NORMAL + (NORMAL**3 + NORMAL) / (4 * freedom)


def agree(values: Sequence[float | None], tolerance: float) -> bool:
    """Whether all values are there, and within a relative distance of their mean."""
    there = [value for value in values if value]
    if not there or len(there) != len(values):
        return False
    mean = math.fsum(there) / len(there)
    return all(abs(value - mean) <= tolerance * mean for value in there)
