"""Display values of an image, made a few rows at a time: nothing of its size is made on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve.errors import OutOfScopeError
from radserve.preprocess._window import apply_window
from radserve.sources import to_modality_values

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from radserve.contracts import ImageInput
    from radserve.sources import Image, VoiLut, VoiWindow

_8_BIT_MAX = 255
_LEAST_PIXELS = 4  # of an image, for each entry of a table: then it pays


class Display:
    """Display values in [0, 1], high is bright, of an image's pixels.

    Args:
        image: Modality values, or RGB.
        window: How they become display values; None makes all of them 0. RGB has none.
        described: The contract's input block.

    Attributes:
        shape: ``(rows, columns)``, of RGB ``(rows, columns, 3)``.
        is_blank: Whether all pixels that count, of the rows made so far, are the same.

    Raises:
        OutOfScopeError: The model reads monochrome and the image is in colour.
        DecodeError: The file's window breaks the standard.
    """

    def __init__(self, image: Image, window: VoiWindow | VoiLut | None, described: ImageInput) -> None:
        if image.photometric_interpretation == "RGB" and described.photometric != "RGB":
            msg = "the image is in colour: the model accepts MONOCHROME1 and MONOCHROME2"
            raise OutOfScopeError(msg)
        self.shape = image.pixels.shape
        self.is_blank = True
        self._image, self._window = image, window
        self._first: NDArray[np.float32] | None = None
        self._table = self._tabulated()

    def make(self, rows: slice, display: NDArray[np.float32]) -> None:
        """Write the display values of some rows, float32.

        Raises:
            DecodeError: The file's window breaks the standard.
        """
        pixels = self._image.pixels[rows]
        if self._table is None:
            self._display(pixels, display)
        else:
            self._table.take(pixels, out=display, mode="wrap")
        valid = None if self._image.valid is None else self._image.valid[rows]
        self._compare(display, valid)
        if valid is not None:
            display *= valid

    def _display(self, pixels: NDArray[Any], display: NDArray[np.float32]) -> None:
        if self._image.photometric_interpretation == "RGB":
            display[...] = pixels
            display /= np.float32(_8_BIT_MAX)
        elif self._window is None:
            display[...] = 0
        else:
            to_modality_values(pixels, self._image.modality, display)
            display[...] = apply_window(display, self._window)
            if self._image.photometric_interpretation == "MONOCHROME1":
                np.subtract(np.float32(1), display, out=display)

    def _tabulated(self) -> NDArray[np.float32] | None:
        """Display values of all integers that may be among the pixels, negative ones last; None if that is slower."""
        pixels = self._image.pixels
        if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2 or self._window is None:  # noqa: PLR2004 - bytes
            return None
        low, high = min(0, int(pixels.min())) if pixels.dtype.kind == "i" else 0, int(pixels.max())
        if _LEAST_PIXELS * (high - low) > pixels.size:
            return None
        whole = np.concatenate([np.arange(high + 1), np.arange(low, 0)]).astype(pixels.dtype)
        table = np.empty(whole.shape, np.float32)
        self._display(whole, table)
        return table

    def _compare(self, display: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> None:
        if not self.is_blank:
            return
        pixels = display.reshape(-1, *self.shape[2:])
        counted = pixels if valid is None else pixels[valid.reshape(-1)]
        if len(counted):
            self._first = counted[0].copy() if self._first is None else self._first
            self.is_blank = bool((counted == self._first).all())
