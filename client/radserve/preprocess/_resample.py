"""Change of sampling rate with a windowed-sinc low-pass (Smith, Digital Audio Resampling, 2002)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ZERO_CROSSINGS = 24  # of the sinc on each side: transition band about 11 % of the lower Nyquist rate
_PASSBAND = 0.94  # centre of the transition, so that the stopband begins at the lower Nyquist rate


def resampled_length(length: int, rate_in: float, rate_out: float) -> int:
    """Samples that fit in the same duration at another rate."""
    return math.floor(length * rate_out / rate_in + 1e-6)  # 10 s at 499.99999 Hz are 10 s


def resample(
    signal: NDArray[np.floating[Any]], rate_in: float, rate_out: float, count: int | None = None
) -> NDArray[np.float64]:
    """Resample with anti-aliasing.

    Deterministic, linear in phase, exact for a constant. At the ends the
    signal is mirrored about its first and last sample, so that an offset or a
    slope does not ring.

    Args:
        signal: Samples along axis 0, ``(samples,)`` or ``(samples, channels)``.
        rate_in: Its sampling rate, Hz.
        rate_out: The rate to reach, Hz.
        count: How many samples to make from the beginning; None for all.

    Returns:
        float64, same axes.
    """
    length = resampled_length(signal.shape[0], rate_in, rate_out)
    length = length if count is None else min(length, count)
    if math.isclose(rate_in, rate_out, rel_tol=1e-9):
        return np.array(signal[:length], dtype=np.float64)
    step = rate_in / rate_out
    cutoff = _PASSBAND * min(1.0, 1 / step)  # in units of the input's Nyquist rate
    reach = math.ceil(_ZERO_CROSSINGS / cutoff)
    needed = signal[: math.ceil(length * step) + reach + 1].astype(np.float64).reshape(-1, signal[:1].size)
    padded = np.pad(needed, [(reach, reach), (0, 0)], mode="reflect", reflect_type="odd")
    result = np.empty((length, needed.shape[1]), dtype=np.float64)
    offsets = np.arange(-reach, reach + 1)
    times = np.arange(length) * step
    nearest = np.minimum(np.rint(times), len(needed) - 1).astype(np.intp)
    windows = sliding_window_view(padded, offsets.size, axis=0).swapaxes(1, 2)
    # The usual rates have few phases, each with its own weights.
    phases, phase_of, counts = np.unique(np.round(times - nearest, 9), return_inverse=True, return_counts=True)
    grouped = np.split(np.argsort(phase_of, kind="stable"), np.cumsum(counts)[:-1])
    for phase, places in zip(phases, grouped, strict=False):  # an empty signal has no phase, but one empty group
        distance = offsets - phase
        weights = np.sinc(cutoff * distance) * _blackman(distance / (reach + 1))
        weights /= weights.sum()
        starts = nearest[places]
        gap = starts[1] - starts[0] if len(starts) > 1 else 1
        # Evenly spaced, as they nearly always are, they are seen where they lie, not copied.
        is_even = gap > 0 and bool((np.diff(starts) == gap).all())
        seen = windows[starts[0] : starts[-1] + 1 : gap] if is_even else windows[starts]
        result[places] = weights @ seen
    return result.reshape(length, *signal.shape[1:])


def _blackman(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Blackman window over -1..1 (stopband about -74 dB)."""
    window: NDArray[np.float64] = 0.42 + 0.5 * np.cos(np.pi * place) + 0.08 * np.cos(2 * np.pi * place)
    return np.where(np.abs(place) <= 1, window, 0.0)
