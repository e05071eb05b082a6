"""Sources to arrays: what would go on the wire, with the batch axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve._codec._wire import utf8
from radserve.contracts import TEXT, Aspect, ImageInput, TextInput, WaveformInput
from radserve.errors import InputError
from radserve.preprocess import check_scope, image_to_wire, place, placement_of, waveform_to_wire
from radserve.sources import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    from numpy.typing import NDArray

    from radserve.contracts import Contract, Policy, TensorSpec
    from radserve.dicom import DicomFile, DicomSource
    from radserve.preprocess import Placement

Source: TypeAlias = "DicomSource | NDArray[Any]"

_MAX_VALUES = 2**26


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An input that is ready to be sent.

    Attributes:
        inputs: Arrays by tensor name, batch axis in front.
        sop_instance_uids: Which DICOM instances they were made of.
        placement: How an image was brought to the wire; None for other inputs.
        pixel_spacing_mm: Of the image, in the patient; None where the file does not say it.
    """

    inputs: dict[str, NDArray[Any]]
    sop_instance_uids: tuple[str, ...] = ()
    placement: Placement | None = None
    pixel_spacing_mm: tuple[float, float] | None = None


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
    for first in range(0, count, step):
        yield {name: array[first : first + step] for name, array in prepared.inputs.items()}


def prepare(
    contract: Contract, source: Source, *, frame: int | None = None, burned_in: Policy | None = None
) -> Prepared:
    """Make the arrays that a model's contract asks for.

    The scope of a file is checked before anything in it is decoded.

    Args:
        contract: The model's contract.
        source: A DICOM file (path, bytes or data set); a report's text; or an
            array: exactly the wire's dtype and shape, or for image models a
            two-dimensional one of modality values, taken as MONOCHROME2.
        frame: Which frame of a multi-frame image, counted from 0.
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
    tensor = contract.inputs[0]
    if isinstance(described, TextInput):
        return Prepared(inputs={TEXT: _text(source, described)})
    if isinstance(source, np.ndarray):
        return _of_array(source, tensor, described)
    file = _open(source)
    check_scope(file.scope, described, burned_in=burned_in)
    uid = file.scope.sop_instance_uid
    uids = (uid,) if uid else ()
    if isinstance(described, WaveformInput):
        return Prepared(
            inputs={tensor.name: waveform_to_wire(file.waveform(), described)[np.newaxis]}, sop_instance_uids=uids
        )
    image = file.image(frame=frame)
    return Prepared(
        inputs={tensor.name: image_to_wire(image, described)[np.newaxis]},
        sop_instance_uids=uids,
        placement=placement_of((image.values.shape[0], image.values.shape[1]), described),
        pixel_spacing_mm=image.pixel_spacing_mm,
    )


def _open(source: DicomSource) -> DicomFile:
    # pydicom takes half a second to import, which those who send text need not wait for.
    from radserve.dicom import open_dicom  # noqa: PLC0415 - see above

    return open_dicom(source)


def _text(source: object, described: TextInput) -> NDArray[np.object_]:
    if not isinstance(source, str):
        msg = f"the model reads a report's text: give a str, not {type(source).__name__}"
        raise InputError(msg)
    if not source.strip():
        msg = "the report's text is empty"
        raise InputError(msg)
    encoded = utf8(source)
    if len(encoded) > described.max_bytes:
        msg = f"the report's text is longer than the {described.max_bytes} bytes of UTF-8 that the model accepts"
        raise InputError(msg)
    return np.array([[encoded]], dtype=object)


def _of_array(array: NDArray[Any], tensor: TensorSpec, described: ImageInput | WaveformInput) -> Prepared:
    if array.dtype == tensor.dtype.numpy and array.shape == tensor.dims:
        size = array.shape[0], array.shape[1]
        as_it_is = place(size, size, Aspect.STRETCH) if isinstance(described, ImageInput) else None
        return Prepared(inputs={tensor.name: array[np.newaxis]}, placement=as_it_is)
    expected = f"{tensor.dtype.numpy.name} {tensor.dims}"
    if isinstance(described, WaveformInput):
        msg = f"an array for this model must be {expected}, (samples, leads); give a DICOM file for the rest"
        raise InputError(msg)
    if array.ndim != 2 or array.dtype.kind not in "iuf":  # noqa: PLR2004 - rows and columns
        msg = f"an array for this model must be {expected} as on the wire, or modality values (rows, columns)"
        raise InputError(msg)
    if not 0 < array.size <= _MAX_VALUES:
        msg = f"an array must hold between 1 and {_MAX_VALUES} modality values"
        raise InputError(msg)
    with np.errstate(over="ignore"):  # what overflows is refused just below
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        msg = "the array holds values that are not finite numbers"
        raise InputError(msg)
    wire = image_to_wire(Image(values=values, photometric_interpretation="MONOCHROME2"), described)
    size = array.shape[0], array.shape[1]
    return Prepared(inputs={tensor.name: wire[np.newaxis]}, placement=placement_of(size, described))


def check_arrays(contract: Contract, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Compare a caller's arrays with the contract's inputs.

    Args:
        contract: The model's contract.
        arrays: One for each input tensor; with the batch axis in front, unless
            the model has none.

    Raises:
        InputError: A name, dtype, shape or batch differs, or a value is not finite.
    """
    expected = {tensor.name: tensor for tensor in contract.inputs}
    if not hasattr(arrays, "keys") or set(arrays) != set(expected):
        msg = f"model {contract.name} takes these inputs by name: {', '.join(sorted(expected))}"
        raise InputError(msg)
    checked = {name: _checked(contract, tensor, arrays[name]) for name, tensor in expected.items()}
    if contract.max_batch_size and len({len(array) for array in checked.values()}) > 1:
        msg = f"the inputs of model {contract.name} have different batch sizes"
        raise InputError(msg)
    return checked


def _checked(contract: Contract, tensor: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(array, np.ndarray):
        msg = f"input {tensor.name} must be a numpy array, not {type(array).__name__}"
        raise InputError(msg)
    kinds = ("O", "U", "S") if tensor.dtype.numpy.hasobject else ()
    if array.dtype != tensor.dtype.numpy and array.dtype.kind not in kinds:
        msg = f"input {tensor.name} must be {tensor.dtype.numpy.name}, not {array.dtype}: convert it with .astype()"
        raise InputError(msg)
    shape = array.shape[1:] if contract.max_batch_size else array.shape
    fits = len(shape) == len(tensor.dims) and all(
        want in (-1, have) for have, want in zip(shape, tensor.dims, strict=True)
    )
    if not fits or not array.size or (contract.max_batch_size and array.ndim == 0):
        batch = ("batch",) if contract.max_batch_size else ()
        axes = ", ".join(str(axis) for axis in (*batch, *("any" if dim < 0 else dim for dim in tensor.dims)))
        msg = f"input {tensor.name} must have the shape ({axes}), not {array.shape}"
        raise InputError(msg)
    if contract.max_batch_size and len(array) > contract.max_batch_size:
        msg = f"model {contract.name} takes at most {contract.max_batch_size} items in one call"
        raise InputError(msg)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        msg = f"input {tensor.name} holds values that are not finite numbers"
        raise InputError(msg)
    return array


def canary(contract: Contract) -> dict[str, NDArray[Any]]:
    """Harmless arrays for a real inference: zeros, free axes of length 1, the text "canary"."""
    batch = (1,) if contract.max_batch_size else ()
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in contract.inputs:
        shape = (*batch, *(1 if dim < 0 else dim for dim in tensor.dims))
        if tensor.dtype.numpy.hasobject:
            arrays[tensor.name] = np.full(shape, b"canary", dtype=object)
        else:
            arrays[tensor.name] = np.zeros(shape, dtype=tensor.dtype.numpy)
    return arrays
