"""An image to the wire: crop, window, invert, resize, round, in that order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import FileWindow, FixedWindow
from radserve.errors import OutOfScopeError
from radserve.preprocess._crop import crop_box
from radserve.preprocess._display import Display
from radserve.preprocess._geometry import placement_of
from radserve.preprocess._resize import made_to_wire_grid
from radserve.preprocess._window import percentile_window
from radserve.sources import VoiWindow

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from radserve.contracts import ImageInput
    from radserve.sources import Image, VoiLut

_HOUNSFIELD = ("HU", "US", None)  # unspecified and absent mean HU, too (PS3.3 C.8.2.1)
# What is enlarged more than this holds too little of what the network was trained on.
_LARGEST_ENLARGEMENT = 4


def image_to_wire(image: Image, described: ImageInput) -> NDArray[np.uint8 | np.uint16]:
    """Make what a model's PIXELS tensor takes, without the batch axis.

    Display values in [0, 1] are spread over the full range of the wire's
    integers. Padded pixels become 0 (black). A model that reads RGB gets
    three equal channels of a monochrome image.

    Args:
        image: Modality values, or RGB.
        described: The contract's input block.

    Returns:
        ``(rows, columns, channels)``, uint8 or uint16.

    Raises:
        OutOfScopeError: The model reads monochrome and the image is in colour,
            the file has no such window; all pixels look the same, or there are fewer
            than a quarter of the model's rows or columns.
        DecodeError: The file's window or the shape of its pixels breaks the standard.
    """
    wire, is_blank = render(image, described)
    if is_blank:
        msg = "the image has no contrast: after windowing all its pixels are the same"
        raise OutOfScopeError(msg)
    return wire


def render(image: Image, described: ImageInput) -> tuple[NDArray[np.uint8 | np.uint16], bool]:
    """As ``image_to_wire``, but accept an image without contrast, and say whether it is one.

    In a study, there may be some: the outermost slices may show nothing but air.
    """
    placement = placement_of(image.size, described, image.pixel_aspect)
    part = cropped(image, described)
    window = None if part.photometric_interpretation == "RGB" else window_of(part, described)
    display = Display(part, window, described)
    on_wire = made_to_wire_grid(display.make, display.shape, placement.kept)
    return to_wire(on_wire, described), display.is_blank


def cropped(image: Image, described: ImageInput) -> Image:
    """The part of an image that a model's crop leaves.

    Raises:
        OutOfScopeError: It is too small for the model.
    """
    top, left, bottom, right = crop_box(*image.size, described.crop)
    rows, columns = bottom - top, right - left
    enough = _LARGEST_ENLARGEMENT * rows >= described.rows and _LARGEST_ENLARGEMENT * columns >= described.columns
    if not enough:
        msg = (
            f"the image is too small: the model reads {described.rows} x {described.columns} pixels,"
            f" and enlarges what is seen of an image at most {_LARGEST_ENLARGEMENT} times"
        )
        raise OutOfScopeError(msg)
    if described.crop is None:
        return image
    kept = np.s_[top:bottom, left:right]
    return replace(image, pixels=image.pixels[kept], valid=None if image.valid is None else image.valid[kept])


def window_of(image: Image, described: ImageInput) -> VoiWindow | VoiLut | None:
    """The window that a contract wants of a monochrome image; None where the image has no contrast.

    Raises:
        OutOfScopeError: The file has no such window, or its CT values are no Hounsfield units.
    """
    window = described.window
    if isinstance(window, FixedWindow):
        if image.scope.modality == "CT" and image.rescale_type not in _HOUNSFIELD:
            msg = "RescaleType is not HU, and the model's window is in Hounsfield units: give images whose values are"
            raise OutOfScopeError(msg)
        return VoiWindow(center=window.center, width=window.width)
    if isinstance(window, FileWindow):
        if window.index < len(image.windows):
            return image.windows[window.index]
        if image.windows or window.fallback_percentiles is None:
            msg = f"the model uses window {window.index} of the file, which holds {len(image.windows)}"
            raise OutOfScopeError(msg)
        return percentile_window(valid_values(image), window.fallback_percentiles)
    return percentile_window(valid_values(image), (window.lower, window.upper))


def valid_values(image: Image) -> NDArray[np.float32]:
    """Modality values of the pixels that count."""
    counted = image.values if image.valid is None else image.values[image.valid]
    return counted.astype(np.float32, copy=False)


def to_wire(display: NDArray[np.float32], described: ImageInput) -> NDArray[Any]:
    """Round display values on the wire's grid to its integers; the axis of channels is added where it is lacking.

    Args:
        display: Of ``described.grid``, with or without channels.
        described: The contract's input block.
    """
    dtype: type[np.uint8 | np.uint16] = np.uint8 if described.wire_dtype == "UINT8" else np.uint16
    highest = np.iinfo(dtype).max
    wire = np.rint(display * np.float32(highest)).clip(0, highest).astype(dtype)
    if wire.ndim == len(described.grid):
        wire = wire[..., np.newaxis]
    return np.ascontiguousarray(np.broadcast_to(wire, (*described.grid, described.channels)))
