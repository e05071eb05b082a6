"""A recording, in microvolts (PS3.3 C.10.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve.dicom._attributes import get, numbers, positive, text, texts
from radserve.errors import DecodeError, MissingAttributeError, OutOfScopeError
from radserve.sources import Channel, MultiplexGroup, Scope, Waveform

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    Stored: TypeAlias = NDArray[np.integer[Any]]

MAX_GROUP_BYTES = 2**28
# Waveform Sample Interpretation (5400,1006) and the bytes of a sample; MB and AB are
# companded sound, which no physiological recording holds.
_SAMPLE_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
_MICROVOLTS = {"UV": 1.0, "MV": 1e3, "V": 1e6, "NV": 1e-3}  # UCUM, upper case
_SKEWS = ("ChannelTimeSkew", "ChannelSampleSkew", "ChannelOffset")


def decode_waveform(dataset: Dataset, scope: Scope) -> Waveform:
    """Decode the recording; see ``radserve.dicom.read_waveform``."""
    items = get(dataset, "WaveformSequence")
    if not items:
        keyword = "WaveformSequence"
        raise MissingAttributeError(keyword, "the file holds no waveform")
    little = dataset.original_encoding[1] is not False
    return Waveform(groups=tuple(_group(item, little_endian=little) for item in items), scope=scope)


def _group(item: Dataset, *, little_endian: bool) -> MultiplexGroup:
    rate = numbers(item, "SamplingFrequency")
    if not rate or rate[0] <= 0:
        keyword = "SamplingFrequency"
        raise MissingAttributeError(keyword, "a multiplex group does not say how fast it was sampled")
    samples = _samples(item, little_endian=little_endian)
    definitions = get(item, "ChannelDefinitionSequence") or ()
    if len(definitions) != samples.shape[1]:
        msg = "ChannelDefinitionSequence does not describe every channel of its multiplex group"
        raise DecodeError(msg)
    padding = _padding(item, samples.dtype)
    channels = [_channel(definition, samples[:, place], padding) for place, definition in enumerate(definitions)]
    return MultiplexGroup(
        sampling_frequency_hz=rate[0], channels=tuple(channel for channel in channels if channel is not None)
    )


def _samples(item: Dataset, *, little_endian: bool) -> Stored:
    """Stored samples ``(samples, channels)``."""
    kind = _SAMPLE_TYPES.get(text(item, "WaveformSampleInterpretation") or "")
    bits = positive(item, "WaveformBitsAllocated")
    if kind is None or bits != 8 * int(kind[1]):
        msg = "WaveformSampleInterpretation is none of 8, 16 or 32-bit integers that match WaveformBitsAllocated"
        raise DecodeError(msg)
    count, channels = positive(item, "NumberOfWaveformSamples"), positive(item, "NumberOfWaveformChannels")
    expected = count * channels * bits // 8
    if expected > MAX_GROUP_BYTES:
        msg = f"a multiplex group is larger than {MAX_GROUP_BYTES >> 20} MiB, the most this SDK decodes"
        raise DecodeError(msg)
    data = get(item, "WaveformData")
    if not isinstance(data, bytes) or len(data) < expected:
        msg = "WaveformData is shorter than its multiplex group says: fetch the file again"
        raise DecodeError(msg)
    dtype = np.dtype(kind).newbyteorder("<" if little_endian else ">")
    return np.frombuffer(data, dtype=dtype, count=count * channels).reshape(count, channels)


def _padding(item: Dataset, dtype: np.dtype[np.generic]) -> int | None:
    value = get(item, "WaveformPaddingValue")
    if not isinstance(value, bytes) or len(value) < dtype.itemsize:
        return None
    return int(np.frombuffer(value, dtype=dtype, count=1)[0])


def _channel(definition: Dataset, stored: Stored, padding: int | None) -> Channel | None:
    """A channel in microvolts, or None where it measures no voltage or is not in order (PS3.3 C.10.9.1.4)."""
    if set(texts(definition, "ChannelStatus")) - {"OK"}:
        return None
    units = get(definition, "ChannelSensitivityUnitsSequence")
    sensitivity = numbers(definition, "ChannelSensitivity")
    factor = _MICROVOLTS.get(text(units[0], "CodeValue") or "") if units else None
    if factor is None or not sensitivity:
        return None
    if any(value for keyword in _SKEWS for value in numbers(definition, keyword)):
        msg = "a channel is shifted in time (ChannelTimeSkew, ChannelSampleSkew, ChannelOffset): have the file aligned"
        raise OutOfScopeError(msg)
    correction = numbers(definition, "ChannelSensitivityCorrectionFactor") or (1.0,)
    baseline = numbers(definition, "ChannelBaseline") or (0.0,)
    values = (stored.astype(np.float64) * sensitivity[0] * correction[0] + baseline[0]) * factor
    if padding is not None:
        values[stored == padding] = np.nan
    codes = tuple(
        (str(get(code, "CodeValue") or ""), str(get(code, "CodingSchemeDesignator") or "").upper())
        for code in get(definition, "ChannelSourceSequence") or ()
    )
    return Channel(codes=codes, microvolts=values)
