"""From modality values to the wire: the same steps in training, parity checks and serving.

NumPy only. Images: crop, VOI LUT or window to [0, 1], inversion of MONOCHROME1,
resize, rounding to the wire's integers. Waveforms: lead order, resampling,
rounding to the wire's integers.
"""

from radserve.preprocess._crop import crop_box
from radserve.preprocess._geometry import (
    Placement,
    interpolate_to_source_grid,
    place,
    placement_of,
    span,
    to_source_grid,
)
from radserve.preprocess._image import image_to_wire, render
from radserve.preprocess._level import level
from radserve.preprocess._resample import resample
from radserve.preprocess._resize import resize, to_wire_grid
from radserve.preprocess._scope import check_scope
from radserve.preprocess._volume import volume_placement, volume_to_wire
from radserve.preprocess._waveform import waveform_to_wire
from radserve.preprocess._window import apply_window

__all__ = [
    "Placement",
    "apply_window",
    "check_scope",
    "crop_box",
    "image_to_wire",
    "interpolate_to_source_grid",
    "level",
    "place",
    "placement_of",
    "render",
    "resample",
    "resize",
    "span",
    "to_source_grid",
    "to_wire_grid",
    "volume_placement",
    "volume_to_wire",
    "waveform_to_wire",
]
