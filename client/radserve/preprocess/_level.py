"""How bright, strong or long an input is, as one number: its distribution shows whether inputs stay as they were."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.contracts import FixedWindow, TextInput, WaveformInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.contracts import ImageInput

_MICROVOLTS = 1000  # in a millivolt


def level(wire: NDArray[Any], described: ImageInput | WaveformInput | TextInput) -> float:
    """The level of one input, as it goes on the wire.

    Exporter and SDK call this same function: what the contract's reference holds
    and what is observed later are comparable.

    Args:
        wire: The wire's array of one image, volume, recording or text; with or
            without the batch axis.
        described: The contract's input block.

    Returns:
        Of an image or a volume the mean of its pixels, padding included: for monochrome
        models with a fixed window in modality values (HU for CT), which the window
        limits, else as a share of the wire's range (0 black, 1 white). Of a recording
        the root mean square of all its leads, in millivolts. Of a text the number of
        its characters.
    """
    if isinstance(described, TextInput):
        (text,) = wire.reshape(-1)
        return float(len(bytes(text).decode()))
    if isinstance(described, WaveformInput):
        samples = wire.reshape(-1)
        # einsum converts piece by piece: no copy of the recording in floats
        square = np.einsum("i,i->", samples, samples, dtype=np.float64) / samples.size
        return math.sqrt(square) * described.resolution_uv / _MICROVOLTS
    share = int(wire.sum(dtype=np.uint64)) / wire.size / np.iinfo(wire.dtype).max
    window = described.window
    if not isinstance(window, FixedWindow) or described.photometric == "RGB":
        return share
    return (share - 0.5) * (window.width - 1) + window.center - 0.5  # the inverse of PS3.3 C.11.2.1.2.1
