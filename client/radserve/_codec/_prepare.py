"""Sources to arrays: what would go on the wire, with the batch axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from radserve._codec._arrays import canary, check_arrays, of_array
from radserve._codec._prepared import Prepared, Source, batches
from radserve._codec._report import report_array
from radserve._codec._study import check_count, prepare_study
from radserve.contracts import TEXT, EveryImage, FixedWindow, ImageInput, Policy, TextInput, WaveformInput, WholeVolume
from radserve.errors import DecodeError, InputError, OutOfScopeError
from radserve.preprocess import check_scope, image_to_wire, placement_of, waveform_to_wire
from radserve.telemetry import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve.contracts import Contract
    from radserve.dicom import DicomFile, DicomSource
    from radserve.sources import Image

__all__ = ["Prepared", "Source", "batches", "canary", "check_arrays", "prepare"]


def prepare(
    contract: Contract, source: Source, *, frame: int | None = None, burned_in: Policy | None = None
) -> Prepared:
    """Make the arrays that a model's contract asks for.

    The scope of a file is checked before anything in it is decoded.

    Args:
        contract: The model's contract.
        source: A DICOM file (path, bytes or data set), for a model of studies a folder
            or a list of those of one series, or a multi-frame file; a PNG or JPEG
            picture, whose scope nobody can check; a report's text (str), or its
            UTF-8 file (``pathlib.Path``, or content); or an array: exactly the
            wire's dtype and shape, or for image models a two-dimensional one of
            modality values, taken as MONOCHROME2, for a model of studies also
            ``(images, rows, columns)``.
        frame: Which frame of a multi-frame image, counted from 0; a model of
            studies then answers that frame alone.
        burned_in: The caller's own policy for burned-in text; the stricter of it and the contract's holds.

    Raises:
        InputError: The source is not of a kind that the model takes, cannot be
            read, or is outside the contract's scope.
    """
    described = contract.input
    if described is None:
        msg = f"model {contract.name} takes tensors as they are: call infer() instead"
        raise InputError(msg)
    if frame is not None and (not isinstance(described, ImageInput) or isinstance(source, np.ndarray)):
        msg = "frame= chooses a frame of a DICOM image: leave it out for other inputs"
        raise InputError(msg)
    if isinstance(described, TextInput):
        return Prepared(inputs={TEXT: report_array(source, described)})
    if isinstance(source, np.ndarray):
        return of_array(contract, source)
    try:
        return _of_files(contract, source, frame, burned_in)
    except DecodeError as error:
        failure = error
    # Loading Pillow, and looking at the file again, is for those who have no DICOM.
    from radserve import pictures  # noqa: PLC0415 - see above

    if isinstance(described, ImageInput) and pictures.is_picture(source) and frame is None:
        picture = pictures.read_picture(cast("str | bytes", source))
        if described.photometric != "RGB":
            picture = pictures.without_colour(picture)
        return _of_image(contract, _picture(picture, described, burned_in))
    raise failure


def _of_files(
    contract: Contract, source: DicomSource | Sequence[DicomSource], frame: int | None, burned_in: Policy | None
) -> Prepared:
    described = cast("ImageInput | WaveformInput", contract.input)
    study = described.study if isinstance(described, ImageInput) else None
    if isinstance(source, list | tuple) and any(isinstance(one, np.ndarray) for one in source):
        one = (
            "one array (images, rows, columns): numpy.stack(arrays)"
            if study
            else "one array, or predict_many() several"
        )
        msg = f"model {contract.name} takes no list of arrays: give {one}"
        raise InputError(msg)
    if study is not None and frame is None:
        return prepare_study(contract, source, burned_in=burned_in)
    if isinstance(study, WholeVolume):
        msg = f"model {contract.name} reads whole volumes: leave frame= out"
        raise InputError(msg)
    if isinstance(source, list | tuple):
        what = "frame= chooses a frame of one file" if frame is not None else f"model {contract.name} answers one file"
        msg = f"{what}: give one, or predict_many() several"
        raise InputError(msg)
    file = _open(cast("DicomSource", source))
    check_scope(file.scope, described, burned_in=burned_in)
    if isinstance(described, ImageInput):
        with span("decode"):
            image = file.image(frame=frame)
        return _of_image(contract, image)
    uid = file.scope.sop_instance_uid
    with span("decode"):
        waveform = file.waveform()
    with span("preprocess"):
        wire = waveform_to_wire(waveform, described)
    return Prepared(inputs={contract.inputs[0].name: wire[np.newaxis]}, sop_instance_uids=(uid,) if uid else ())


def _open(source: DicomSource) -> DicomFile:
    # pydicom takes half a second to import, which those who send text need not wait for.
    from radserve.dicom import open_dicom  # noqa: PLC0415 - see above

    with span("read"):
        return open_dicom(source)


def _of_image(contract: Contract, image: Image) -> Prepared:
    described = cast("ImageInput", contract.input)
    if isinstance(described.study, WholeVolume):
        msg = f"model {contract.name} reads whole volumes: a picture is none"
        raise InputError(msg)
    uid, number = image.scope.sop_instance_uid, image.frame_number
    images: tuple[tuple[str | None, int | None], ...] = ()
    if isinstance(described.study, EveryImage):
        check_count(described.study, 1)
        images = ((uid, number),)
    with span("preprocess"):
        wire = image_to_wire(image, described)
    return Prepared(
        inputs={contract.inputs[0].name: wire[np.newaxis]},
        sop_instance_uids=(uid,) if uid else (),
        frame_numbers=(number,) if number else (),
        placement=placement_of(image.size, described, image.pixel_aspect),
        pixel_spacing_mm=image.pixel_spacing_mm,
        geometry=image.geometry,
        images=images,
    )


def _picture(image: Image, described: ImageInput, burned_in: Policy | None) -> Image:
    if burned_in is Policy.REFUSE:
        msg = "nobody can say whether a picture holds burned-in text: give a DICOM file, or accept such text"
        raise OutOfScopeError(msg)
    if isinstance(described.window, FixedWindow) and image.photometric_interpretation != "RGB":
        msg = "the model windows modality values (HU), which a picture has not: give a DICOM file"
        raise OutOfScopeError(msg)
    return image
