"""Results as pictures: label maps in one colour a label, evidence maps from dark to bright."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Okabe and Ito's colours, which those who see few colours can tell apart, too.
_COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)],
    np.uint8,
)
_RAMP = np.array([(0, 0, 0), (150, 0, 0), (255, 120, 0), (255, 255, 140)], np.float32)


def label_colours(label_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``(rows, columns, 3)``: black where there is no label."""
    coloured: NDArray[np.uint8] = _COLOURS[(label_map.astype(np.intp) - 1) % len(_COLOURS)]
    coloured[label_map == 0] = 0
    return coloured


def evidence_colours(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``(rows, columns, 3)``: black where nothing speaks for the label, over red to light yellow."""
    place = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(values, place, _RAMP[:, channel]) for channel in range(3)]
    coloured: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return coloured
