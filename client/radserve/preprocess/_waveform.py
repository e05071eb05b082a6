"""A recording to the wire: find the leads by code, resample, round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import Policy
from radserve.errors import OutOfScopeError
from radserve.preprocess._resample import resample, resampled_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.contracts import Lead, WaveformInput
    from radserve.sources import Channel, MultiplexGroup, Waveform

_DECIMALS = 6
_LARGEST_RATIO = 4  # of the model's rate to the recording's: below, the recording lacks what the model looks at


def waveform_to_wire(waveform: Waveform, described: WaveformInput) -> NDArray[np.int16]:
    """Make what a model's SAMPLES tensor takes, without the batch axis.

    Of the multiplex groups that hold every lead, the longest is used. An
    amplitude that the wire's integers cannot hold is refused, not clipped: a
    clipped beat looks like another rhythm.

    Args:
        waveform: Channels in microvolts; NaN where the recording was padded.
        described: The contract's input block.

    Returns:
        ``(samples, leads)``, int16, in steps of ``resolution_uv``.

    Raises:
        OutOfScopeError: A lead is absent or coded twice; the recording is sampled
            below a quarter of the model's rate, too short, too long, has gaps or too large an amplitude.
    """
    rate, channels = _longest_group(waveform, described)
    recorded = np.stack([channel.microvolts for channel in channels], axis=1)
    recorded = recorded[: _recorded_length(recorded)]
    length = resampled_length(len(recorded), rate, described.sampling_frequency_hz)
    wanted_s = described.samples / described.sampling_frequency_hz
    if length < described.samples:
        msg = f"the recording is shorter than the {wanted_s:g} s that the model reads"
        raise OutOfScopeError(msg)
    if length > described.samples and described.longer is Policy.REFUSE:
        msg = f"the recording is longer than the {wanted_s:g} s that the model reads"
        raise OutOfScopeError(msg)
    used = recorded[: int(np.ceil(described.samples * rate / described.sampling_frequency_hz))]
    if not np.isfinite(used).all():
        msg = "the recording has gaps (Waveform Padding Value) where the model reads"
        raise OutOfScopeError(msg)
    # The filter looks a little beyond the part used, but not into a gap.
    gaps = np.flatnonzero(~np.isfinite(recorded).all(axis=1))
    signal = resample(
        recorded[: gaps[0]] if gaps.size else recorded, rate, described.sampling_frequency_hz, described.samples
    )
    # Sums differ in the last bits from processor to processor: halfway between two integers, that must not decide.
    steps = np.rint(np.round(signal / described.resolution_uv, _DECIMALS))
    limits = np.iinfo(np.int16)
    if steps.min() < limits.min or steps.max() > limits.max:
        msg = f"the amplitude exceeds {limits.max * described.resolution_uv / 1000:g} mV, the most the model reads"
        raise OutOfScopeError(msg)
    wire: NDArray[np.int16] = steps.astype(np.int16)
    return wire


def _longest_group(waveform: Waveform, described: WaveformInput) -> tuple[float, list[Channel]]:
    best: tuple[float, float, list[Channel]] | None = None
    missing: list[str] | None = None
    lowest_hz = described.sampling_frequency_hz / _LARGEST_RATIO
    slow = False
    for group in waveform.groups:
        found = [_find(group, lead) for lead in described.leads]
        channels = [channel for channel in found if channel is not None]
        if len(channels) == len(found) and group.sampling_frequency_hz < lowest_hz:
            slow = True
        elif len(channels) == len(found):
            duration_s = _recorded_length(np.stack([channel.microvolts for channel in channels], axis=1))
            candidate = (duration_s / group.sampling_frequency_hz, group.sampling_frequency_hz, channels)
            best = candidate if best is None or candidate[0] > best[0] else best
        else:
            absent = [lead.name for lead, channel in zip(described.leads, found, strict=True) if channel is None]
            missing = absent if missing is None or len(absent) < len(missing) else missing
    if best is None and slow:
        msg = f"SamplingFrequency is below {lowest_hz:g} Hz, the least that the model reads"
        raise OutOfScopeError(msg)
    if best is None:
        names = ", ".join(missing or [lead.name for lead in described.leads])
        msg = f"no channel that measures a voltage is coded as lead {names}"
        raise OutOfScopeError(msg)
    return best[1], best[2]


def _find(group: MultiplexGroup, lead: Lead) -> Channel | None:
    wanted = {(code.value, code.scheme.upper()) for code in lead.codes}
    found = [channel for channel in group.channels if wanted.intersection(channel.codes)]
    if len(found) > 1:
        msg = f"two channels of one multiplex group are coded as lead {lead.name}"
        raise OutOfScopeError(msg)
    return found[0] if found else None


def _recorded_length(samples: NDArray[np.float64]) -> int:
    """Samples before the padding at the end, ``(samples, leads)``."""
    complete = np.flatnonzero(np.isfinite(samples).all(axis=1))
    return int(complete[-1]) + 1 if complete.size else 0
