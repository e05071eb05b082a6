"""Pictures, and what a model says that it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from radserve.contracts import (
    FixedWindow,
    ImageInput,
)
from radserve.sources import Image

FULL = FixedWindow(center=128, width=256)


def described(**changed: Any) -> ImageInput:
    standard: dict[str, Any] = {"modalities": ("DX", "CR"), "rows": 4, "columns": 4, "window": FULL}
    return ImageInput(**{**standard, **changed})


def image(values: Any, **changed: Any) -> Image:
    standard: dict[str, Any] = {"photometric_interpretation": "MONOCHROME2"}
    return Image(pixels=np.asarray(values, dtype=np.float32), **{**standard, **changed})
