"""Studies to arrays: a series or a multi-frame file, image by image or as one volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from radserve._codec._prepared import Prepared
from radserve.contracts import EveryImage, ImageInput, Task, WholeVolume
from radserve.errors import InconsistentSeriesError, OutOfScopeError
from radserve.preprocess import check_scope, placement_of, render, volume_placement, volume_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from radserve.contracts import Contract, Policy
    from radserve.dicom import DicomSource
    from radserve.preprocess import Placement
    from radserve.sources import Geometry, Image

MAX_STUDY_BYTES = 2**30


def prepare_study(
    contract: Contract, source: DicomSource | Sequence[DicomSource], *, burned_in: Policy | None
) -> Prepared:
    """Make the arrays of a series or a multi-frame file; see ``prepare``."""
    from radserve.dicom import open_series  # noqa: PLC0415 - pydicom takes half a second to import

    described = cast("ImageInput", contract.input)
    study = cast("EveryImage | WholeVolume", described.study)
    series = open_series(source, maximum_gap=study.maximum_gap)
    for scope in series.scopes:
        check_scope(scope, described, burned_in=burned_in)
    if isinstance(study, EveryImage):
        return every_image(contract, series.images(), len(series), series.geometry)
    geometry = series.require_volume()
    size = (len(series), *series.plane_size)
    return whole_volume(contract, series.images, size, geometry)


def check_count(study: EveryImage, count: int) -> None:
    """Refuse a study of too few or too many images."""
    fewest, most = study.images
    if not fewest <= count <= most:
        msg = f"the study has {count} images: the model reads {fewest} to {most}"
        raise OutOfScopeError(msg)


def every_image(contract: Contract, images: Iterable[Image], count: int, geometry: Geometry | None = None) -> Prepared:
    """One row for each image.

    Args:
        contract: The model's contract.
        images: Decoded one after the other.
        count: How many there are.
        geometry: Where their stack lies.

    Raises:
        OutOfScopeError: There are too few or too many of them, or none has contrast.
        InconsistentSeriesError: One label map cannot hold them.
        InputError: As ``prepare``.
    """
    described, tensor = cast("ImageInput", contract.input), contract.inputs[0]
    check_count(cast("EveryImage", described.study), count)
    if count * int(np.prod(tensor.dims)) * tensor.dtype.numpy.itemsize > MAX_STUDY_BYTES:
        msg = f"the study takes more than {MAX_STUDY_BYTES >> 30} GiB on the wire: give fewer images at a time"
        raise OutOfScopeError(msg)
    batch = np.empty((count, *tensor.dims), tensor.dtype.numpy)
    placements: list[Placement] = []
    origins = []
    are_blank = True
    for row, image in enumerate(images):
        batch[row], is_blank = render(image, described)
        are_blank = are_blank and is_blank
        placements.append(placement_of(image.size, described, image.pixel_aspect))
        origins.append((image.scope.sop_instance_uid, image.frame_number))
        if contract.task is Task.IMAGE_SEGMENTATION:
            _check_stack(count, image.size, placements)
    if are_blank:
        msg = "no image of the study has contrast: after windowing all pixels of each are the same"
        raise OutOfScopeError(msg)
    are_alike = len(set(placements)) == 1
    return Prepared(
        inputs={tensor.name: batch},
        **_origin(origins),
        placement=placements[0] if are_alike else None,
        placements=() if are_alike else tuple(placements),
        geometry=geometry,
        images=tuple(origins),
    )


def _check_stack(count: int, size: tuple[int, int], placements: Sequence[Placement]) -> None:
    if placements[-1] != placements[0]:
        msg = "Rows, Columns or the shape of pixels differ between the images: one label map cannot hold them"
        raise InconsistentSeriesError(msg)
    if count * size[0] * size[1] > MAX_STUDY_BYTES:
        msg = f"the study's label map would be larger than {MAX_STUDY_BYTES >> 30} GiB: give fewer images at a time"
        raise OutOfScopeError(msg)


def whole_volume(
    contract: Contract,
    images: Callable[[], Iterator[Image]],
    size: tuple[int, ...],
    geometry: Geometry | None,
) -> Prepared:
    """One row for the whole volume.

    Args:
        contract: The model's contract.
        images: Gives the slices in their order, each time it is called.
        size: Slices, rows and columns.
        geometry: Where the volume lies; None where nobody knows.

    Raises:
        OutOfScopeError: It is too small for the model, or has no contrast.
        InputError: As ``prepare``.
    """
    described = cast("ImageInput", contract.input)
    count, rows, columns = size
    if contract.task is Task.IMAGE_SEGMENTATION and count * rows * columns > MAX_STUDY_BYTES:
        msg = f"the volume's label map would be larger than {MAX_STUDY_BYTES >> 30} GiB"
        raise OutOfScopeError(msg)
    spacing = (cast("float", geometry.slice_spacing_mm), *geometry.pixel_spacing_mm) if geometry else None
    placement = volume_placement((count, rows, columns), spacing, described)
    origins: list[tuple[str | None, int | None]] = []

    def told() -> Iterator[Image]:
        origins.clear()  # percentiles take a pass of their own
        for image in images():
            origins.append((image.scope.sop_instance_uid, image.frame_number))
            yield image

    wire = volume_to_wire(told, placement, described)
    return Prepared(
        inputs={contract.inputs[0].name: wire[np.newaxis]},
        **_origin(origins),
        placement=placement,
        geometry=geometry,
    )


def _origin(origins: Iterable[tuple[str | None, int | None]]) -> dict[str, Any]:
    instances = dict.fromkeys(uid for uid, _ in origins if uid)
    numbers = tuple(number for _, number in origins if number is not None)
    return {"sop_instance_uids": tuple(instances), "frame_numbers": numbers}
