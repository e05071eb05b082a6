"""Plain data between reading a file and preprocessing it: no DICOM library in sight.

Their representations show no values: they are in reach of whatever collects a traceback's variables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    """One item of the VOI LUT Sequence (PS3.3 C.11.2.1.1).

    Attributes:
        first: The first modality value mapped.
        table: Output values.
        bits: Bits of an output value.
    """

    first: int
    table: NDArray[np.uint16]
    bits: int


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
        values: Modality values ``(rows, columns)``, float32 (HU for CT), or
            RGB ``(rows, columns, 3)`` uint8.
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

    values: NDArray[np.float32] | NDArray[np.uint8]
    photometric_interpretation: str
    windows: tuple[VoiWindow | VoiLut, ...] = ()
    rescale_type: str | None = None
    valid: NDArray[np.bool_] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    pixel_aspect: float | None = None
    geometry: Geometry | None = None
    frame_number: int | None = None
    scope: Scope = field(default_factory=Scope)


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
