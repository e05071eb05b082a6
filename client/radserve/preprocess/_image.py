"""An image to the wire: crop, window, invert, resize, round, in that order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import FileWindow, FixedWindow
from radserve.errors import OutOfScopeError
from radserve.preprocess._crop import crop_box
from radserve.preprocess._resize import resize
from radserve.preprocess._window import apply_window, percentile_window
from radserve.sources import VoiWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.contracts import ImageInput
    from radserve.sources import Image

_8_BIT_MAX = 255


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
            the file has no such window, the image no contrast, or its crop no
            pixel.
        DecodeError: The file's window breaks the standard.
    """
    image = _cropped(image, described)
    if image.photometric_interpretation == "RGB":
        if described.photometric != "RGB":
            msg = "the image is in colour: the model accepts MONOCHROME1 and MONOCHROME2"
            raise OutOfScopeError(msg)
        display = image.values.astype(np.float32) / np.float32(_8_BIT_MAX)
    else:
        display = _display_values(image, described)
    resized = resize(display, described.rows, described.columns, described.resize.aspect)
    dtype: type[np.uint8 | np.uint16] = np.uint8 if described.wire_dtype == "UINT8" else np.uint16
    highest = np.iinfo(dtype).max
    wire = np.rint(resized * np.float32(highest)).clip(0, highest).astype(dtype)
    if wire.ndim == 2:  # noqa: PLR2004 - rows and columns
        wire = wire[:, :, np.newaxis]
    return np.ascontiguousarray(np.broadcast_to(wire, (described.rows, described.columns, described.channels)))


def _cropped(image: Image, described: ImageInput) -> Image:
    if described.crop is None:
        return image
    top, left, bottom, right = crop_box(image.values.shape[0], image.values.shape[1], described.crop)
    kept = np.s_[top:bottom, left:right]
    return replace(image, values=image.values[kept], valid=None if image.valid is None else image.valid[kept])


def _display_values(image: Image, described: ImageInput) -> NDArray[np.float32]:
    values = image.values.astype(np.float32, copy=False)
    window = described.window
    if isinstance(window, FixedWindow):
        display = apply_window(values, VoiWindow(center=window.center, width=window.width))
    elif isinstance(window, FileWindow):
        if window.index < len(image.windows):
            display = apply_window(values, image.windows[window.index])
        elif not image.windows and window.fallback_percentiles is not None:
            display = percentile_window(values, image.valid, window.fallback_percentiles)
        else:
            msg = f"the model uses window {window.index} of the file, which holds {len(image.windows)}"
            raise OutOfScopeError(msg)
    else:
        display = percentile_window(values, image.valid, (window.lower, window.upper))
    if image.photometric_interpretation == "MONOCHROME1":
        display = np.float32(1) - display
    return display if image.valid is None else np.where(image.valid, display, np.float32(0))
