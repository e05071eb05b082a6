"""When requests of an open loop are due."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_ONCE = 4096


def poisson(rate: float, *, seed: int, worker: int) -> Iterator[float]:
    """Times of a Poisson process without end, in seconds from its begin.

    Those of several workers together are a Poisson process of the sum of their rates.

    Args:
        rate: Events per second.
        seed: Of the run; the same gives the same times.
        worker: Its number, so that workers differ.
    """
    chance = np.random.default_rng([seed, worker])
    now = 0.0
    while True:
        times = now + np.cumsum(chance.exponential(1 / rate, _AT_ONCE))
        now = float(times[-1])
        yield from times.tolist()
