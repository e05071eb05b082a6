"""The part of a frame that a model sees, in pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from radserve.errors import OutOfScopeError

if TYPE_CHECKING:
    from radserve.contracts import Crop

# 0.1 of 30 rows is 3.0000000000000004 in binary: no fourth row is meant.
_ROUNDING = 1e-6


def crop_box(rows: int, columns: int, crop: Crop | None) -> tuple[int, int, int, int]:
    """Say which pixels of a frame are kept.

    A pixel that the crop cuts in part is cut off: burned-in text on it would
    still be read.

    Args:
        rows: Height of the frame.
        columns: Width of the frame.
        crop: The contract's crop; None keeps all.

    Returns:
        Half-open bounds ``(top, left, bottom, right)``: what is kept is
        ``frame[top:bottom, left:right]``.

    Raises:
        OutOfScopeError: The frame is so small that nothing of it is kept.
    """
    if crop is None:
        return 0, 0, rows, columns
    top, left = math.ceil(rows * crop.top - _ROUNDING), math.ceil(columns * crop.left - _ROUNDING)
    bottom = rows - math.ceil(rows * crop.bottom - _ROUNDING)
    right = columns - math.ceil(columns * crop.right - _ROUNDING)
    if bottom <= top or right <= left:
        msg = "the image is too small: nothing of it is left after the model's crop"
        raise OutOfScopeError(msg)
    return top, left, bottom, right
