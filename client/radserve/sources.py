"""Plain data between reading a file and preprocessing it: no DICOM library in sight.

Their representations show no values: they are in reach of whatever collects a traceback's variables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_BLOCK_SAMPLES = 2**16


@dataclass(frozen=True, kw_only=True, repr=False)
class Scope:
    """The attributes a contract may ask about; None where the file has no value.

    Holds what is needed to accept or refuse an input, and nothing that names a patient.
    An age that the file states but nobody can read is NaN.
    """

    modality: str | None = None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    body_part_examined: str | None = None
    view_position: str | None = None
    patient_age_years: float | None = None
    presentation_intent: str | None = None
    burned_in_annotation: str | None = None
    image_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class VoiWindow:
    """Window Center, Width and VOI LUT Function (PS3.3 C.11.2), in modality units."""

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True, kw_only=True, repr=False)
class VoiLut:
    """One item of the Modality or VOI LUT Sequence (PS3.3 C.11.1.1, C.11.2.1.1).

    Attributes:
        first: The first value mapped.
        table: Output values.
        bits: Bits of an output value.
    """

    first: int
    table: NDArray[np.uint16]
    bits: int

    def of(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """The entries for whole numbers, any shape; values beyond either end take the end's."""
        # Clipped as float64: what int64 does not hold would become anything, by processor.
        places = np.clip(values.astype(np.float64) - self.first, 0, len(self.table) - 1).astype(np.intp)
        entries: NDArray[np.uint16] = self.table[places]
        return entries


@dataclass(frozen=True, kw_only=True)
class Rescale:
    """Rescale Slope and Intercept (PS3.3 C.11.1.1)."""

    slope: float
    intercept: float


@dataclass(frozen=True, kw_only=True, repr=False)
class Geometry:
    """Where a grid of pixels lies in the patient: Image Plane module (PS3.3 C.7.6.2), LPS, mm.

    Attributes:
        position_mm: Image Position (Patient) (0020,0032) of the first image.
        row_cosines: First half of Image Orientation (Patient) (0020,0037): along a row.
        column_cosines: Its second half: along a column.
        pixel_spacing_mm: Between rows and between columns.
        slice_spacing_mm: Between slices, along the normal; None of a single image.
        frame_of_reference_uid: Frame of Reference UID (0020,0052).
    """

    position_mm: tuple[float, float, float]
    row_cosines: tuple[float, float, float]
    column_cosines: tuple[float, float, float]
    pixel_spacing_mm: tuple[float, float]
    slice_spacing_mm: float | None = None
    frame_of_reference_uid: str | None = None

    @property
    def normal(self) -> tuple[float, float, float]:
        """Along the slices: the cross product of row and column cosines."""
        (a, b, c), (d, e, f) = self.row_cosines, self.column_cosines
        return b * f - c * e, c * d - a * f, a * e - b * d


@dataclass(frozen=True, kw_only=True, repr=False)
class Image:
    """One frame.

    Attributes:
        pixels: ``(rows, columns)``, integers or floats, or RGB ``(rows, columns, 3)`` uint8.
        modality: What makes modality values of the pixels; None where they are those, or RGB.
        photometric_interpretation: MONOCHROME1, MONOCHROME2 or RGB (palette and YBR are converted).
        windows: What the file offers to make display values of modality values, VOI LUTs first.
        rescale_type: Rescale Type (0028,1054) or Modality LUT Type (0028,3004): what the
            modality values are; None where the file does not say it.
        valid: False where Pixel Padding Value stands; None where all pixels count.
        pixel_spacing_mm: Between rows and between columns, in the patient; None where the file does not say it.
        pixel_aspect: Height of a pixel through its width; None where the file does not say it.
        geometry: Where it lies in the patient; None where the file does not say it.
        frame_number: Of a multi-frame file, counted from 1; None for all others.
        scope: What the contract may ask about.
    """

    pixels: NDArray[Any]
    photometric_interpretation: str
    modality: Rescale | VoiLut | None = None
    windows: tuple[VoiWindow | VoiLut, ...] = ()
    rescale_type: str | None = None
    valid: NDArray[np.bool_] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    pixel_aspect: float | None = None
    geometry: Geometry | None = None
    frame_number: int | None = None
    scope: Scope = field(default_factory=Scope)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @cached_property
    def values(self) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Modality values ``(rows, columns)``, float32 (HU for CT), or RGB ``(rows, columns, 3)`` uint8.

        Made of all pixels when asked for, and kept.
        """
        if self.photometric_interpretation == "RGB":
            return cast("NDArray[np.uint8]", self.pixels)
        if self.modality is None and self.pixels.dtype == np.float32:
            return cast("NDArray[np.float32]", self.pixels)
        values = np.empty(self.pixels.shape, np.float32)
        for rows in row_blocks(self.pixels.shape):
            to_modality_values(self.pixels[rows], self.modality, values[rows])
        return values


def to_modality_values(
    pixels: NDArray[Any], modality: Rescale | VoiLut | None, values: NDArray[np.floating[Any]]
) -> None:
    """Apply the modality LUT (PS3.3 C.11.1).

    Args:
        pixels: Any shape.
        modality: See ``Image``.
        values: Where the modality values are written, same shape.
    """
    values[...] = modality.of(pixels) if isinstance(modality, VoiLut) else pixels
    if isinstance(modality, Rescale):
        values *= modality.slope
        values += modality.intercept


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """A few rows of an array at a time: what is computed of them in wider types stays in the processor's cache."""
    step = max(1, _BLOCK_SAMPLES // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


@dataclass(frozen=True, kw_only=True, repr=False)
class Channel:
    """One waveform channel.

    Attributes:
        codes: (value, scheme) pairs that name its source.
        microvolts: Samples, float64, in microvolts.
    """

    codes: tuple[tuple[str, str], ...]
    microvolts: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MultiplexGroup:
    """Channels sampled together (PS3.3 C.10.9)."""

    sampling_frequency_hz: float
    channels: tuple[Channel, ...]


@dataclass(frozen=True, kw_only=True)
class Waveform:
    """One recording."""

    groups: tuple[MultiplexGroup, ...]
    scope: Scope = field(default_factory=Scope)
