"""Pictures of an organ with a lesion, and their true label maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from support.datasets import make

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

# Size on the wire.
ROWS, COLUMNS = 24, 32
# HU of background, organ and lesion; a window of 100.5/201 puts them at 0, 0.5 and 1.
LEVELS = (0, 100, 200)


def truth(rows: int, columns: int) -> NDArray[np.uint8]:
    """An organ with a lesion in one corner of it: unlike its mirror images, its transpose and its turns."""
    drawn = np.zeros((rows, columns), np.uint8)
    drawn[rows * 4 // 10 : rows * 7 // 10, columns * 3 // 10 : columns * 7 // 10] = 1
    drawn[rows * 4 // 10 : rows * 5 // 10, columns * 3 // 10 : columns * 4 // 10] = 2
    return drawn


def picture(drawn: NDArray[np.uint8], *, faint: int = 0, **changed: Any) -> Dataset:
    """A CT slice that shows each label at its level, and something faint in a corner."""
    rows, columns = drawn.shape
    values = np.array(LEVELS, "<u2")[drawn]
    values[0, 0] += faint
    return make(Rows=rows, Columns=columns, PixelData=values.tobytes(), **changed)
