"""A label map on the wire's grid to one on the source image's own, and what is in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from radserve._codec._decode import untrusted
from radserve.contracts import LABEL_MAP, ImageInput
from radserve.preprocess import to_source_grid
from radserve.results import Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve._codec._decode import Answer
    from radserve._codec._prepared import Prepared
    from radserve.contracts import Contract

_SHORTEST_MM, _LONGEST_MM = 1e-6, 1e6
_EVEN = 0.1  # where distances between slices may differ by more of their median, their mean measures no volume


def segmented(contract: Contract, prepared: Prepared, answer: Answer) -> tuple[NDArray[np.uint8], tuple[Region, ...]]:
    """Bring an answer's label map back to where the input came from.

    Args:
        contract: Names the labels: k is the value of the k-th.
        prepared: Says how the input was brought to the wire.
        answer: Holds LABEL_MAP.

    Returns:
        The label map on the source's grid, read-only, and one region for each label.
        Of a study answered image by image the maps are stacked.

    Raises:
        InferenceFailedError: A value of the map is none of the labels'.
    """
    on_wire = answer.arrays[LABEL_MAP]
    if on_wire.max() > len(contract.labels):
        raise untrusted(contract, answer.request_id, "the label map holds a value that is no label's")
    assert prepared.placement is not None  # noqa: S101 - a contract of this task has an image input
    first = to_source_grid(on_wire[0], prepared.placement)
    label_map = first
    if prepared.images:
        label_map = np.empty((len(on_wire), *first.shape), first.dtype)
        for place, one in enumerate(on_wire):
            label_map[place] = to_source_grid(one, prepared.placement)
    label_map.flags.writeable = False
    counts = np.zeros(1 + len(contract.labels), np.int64)
    for row in label_map.reshape(-1, label_map.shape[-1]):  # all at once would take eight bytes a pixel
        counts += np.bincount(row, minlength=len(counts))
    spacing = prepared.pixel_spacing_mm if label_map.ndim == 2 else None  # noqa: PLR2004 - a stack has a volume, no area
    pixel_mm2, voxel_mm3 = None if spacing is None else _size_mm(*spacing), _voxel_mm3(contract, prepared)
    regions = [
        Region(
            label=label.name,
            value=value,
            is_positive=count > 0,
            pixel_count=count,
            area_mm2=None if pixel_mm2 is None else count * pixel_mm2,
            volume_mm3=None if voxel_mm3 is None else count * voxel_mm3,
            code=label.code,
            category=label.category,
        )
        for value, (label, count) in enumerate(zip(contract.labels, counts[1:].tolist(), strict=True), start=1)
    ]
    return label_map, tuple(regions)


def _voxel_mm3(contract: Contract, prepared: Prepared) -> float | None:
    """Volume of a pixel of a stack; None of one image, and where the files do not say it."""
    study, geometry = cast("ImageInput", contract.input).study, prepared.geometry
    if study is None or geometry is None or geometry.slice_spacing_mm is None:
        return None
    if study.maximum_gap > _EVEN:
        return None
    return _size_mm(*geometry.pixel_spacing_mm, geometry.slice_spacing_mm)


def _size_mm(*lengths_mm: float) -> float | None:
    """Their product; None where a length is none that anything in a patient has."""
    return math.prod(lengths_mm) if min(lengths_mm) > _SHORTEST_MM and max(lengths_mm) < _LONGEST_MM else None
