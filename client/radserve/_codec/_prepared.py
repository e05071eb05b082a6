"""An input that is ready to be sent, and the requests it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from numpy.typing import NDArray

from radserve.preprocess import Placement
from radserve.sources import Geometry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from radserve.dicom import DicomSource

Source: TypeAlias = "DicomSource | Sequence[DicomSource] | NDArray[Any]"


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """An input that is ready to be sent.

    Attributes:
        inputs: Arrays by tensor name, batch axis in front: one row for each image of a study.
        sop_instance_uids: Which DICOM instances they were made of.
        frame_numbers: Which frames of a multi-frame file, counted from 1.
        placement: How an image, each image of a study or a volume was brought to the
            wire; None for other inputs, and where a study's images are of several sizes.
        placements: Of a study that is answered image by image, that of each image, in the
            order of the rows; empty where all have the same.
        pixel_spacing_mm: Of a single image, in the patient; None where the file does not say it.
        geometry: Where the image, or the stack, lies in the patient; None where the
            files do not say it.
        images: SOP Instance UID and frame number of each image of a study that is
            answered image by image, in the order of the rows.
    """

    inputs: dict[str, NDArray[Any]]
    sop_instance_uids: tuple[str, ...] = ()
    frame_numbers: tuple[int, ...] = ()
    placement: Placement | None = None
    placements: tuple[Placement, ...] = ()
    pixel_spacing_mm: tuple[float, float] | None = None
    geometry: Geometry | None = None
    images: tuple[tuple[str | None, int | None], ...] = ()

    __repr__ = object.__repr__  # the pixels are a patient's


def batches(prepared: Prepared, max_batch_size: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The requests' arrays, in order: a study of many images does not fit into one.

    Args:
        prepared: What is to be sent.
        max_batch_size: Largest batch of one request; 0 means no batch axis.

    Yields:
        Arrays by tensor name, batch axis in front.
    """
    count = len(next(iter(prepared.inputs.values())))
    step = max_batch_size or count
    if count <= step:
        yield prepared.inputs
        return
    for first in range(0, count, step):
        yield {name: array[first : first + step] for name, array in prepared.inputs.items()}
