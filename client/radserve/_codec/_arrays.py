"""Arrays that a caller brings: made an input, or compared with the contract; and harmless ones."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from radserve._codec._prepared import Prepared
from radserve._codec._study import check_count, every_image, whole_volume
from radserve.contracts import Aspect, EveryImage, ImageInput, WaveformInput, WholeVolume
from radserve.errors import InputError
from radserve.preprocess import image_to_wire, place, placement_of, span
from radserve.sources import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from radserve.contracts import Contract, TensorSpec
    from radserve.preprocess import Placement

_MAX_VALUES = 2**26
_PLANE, _STACK = 2, 3


def of_array(contract: Contract, array: NDArray[Any]) -> Prepared:
    """An input of an array: exactly the wire's dtype and shape, or modality values of images.

    Raises:
        InputError: It is neither.
    """
    described = cast("ImageInput | WaveformInput", contract.input)
    tensor = contract.inputs[0]
    study = described.study if isinstance(described, ImageInput) else None
    if array.dtype == tensor.dtype.numpy:
        if array.shape == tensor.dims:
            return _as_it_is(contract, array[np.newaxis])
        if isinstance(study, EveryImage) and array.shape[1:] == tensor.dims:
            return _as_it_is(contract, array)
    expected = f"{tensor.dtype.numpy.name} {tensor.dims}"
    if isinstance(described, WaveformInput):
        msg = f"an array for this model must be {expected}, (samples, leads); give a DICOM file for the rest"
        raise InputError(msg)
    axes = {_STACK} if isinstance(study, WholeVolume) else {_PLANE, _STACK} if study else {_PLANE}
    if array.ndim not in axes or array.dtype.kind not in "iuf":
        values = " or ".join(
            {_PLANE: "(rows, columns)", _STACK: "(images, rows, columns)"}[ndim] for ndim in sorted(axes)
        )
        msg = f"an array for this model must be {expected} as on the wire, or modality values {values}"
        raise InputError(msg)
    if not 0 < array.size <= _MAX_VALUES:
        msg = f"an array must hold between 1 and {_MAX_VALUES} modality values"
        raise InputError(msg)
    with np.errstate(over="ignore"):  # what overflows is refused just below
        values_zyx = array.astype(np.float32).reshape(-1, *array.shape[-2:])
    if not np.isfinite(values_zyx).all():
        msg = "the array holds values that are not finite numbers"
        raise InputError(msg)
    images = [Image(pixels=plane, photometric_interpretation="MONOCHROME2") for plane in values_zyx]
    if isinstance(study, WholeVolume):
        return whole_volume(contract, lambda: iter(images), values_zyx.shape, None)
    if study is not None:
        return every_image(contract, images, len(images))
    wire = image_to_wire(images[0], described)
    return Prepared(
        inputs={tensor.name: wire[np.newaxis]}, placement=placement_of(cast("tuple[int, int]", array.shape), described)
    )


def _as_it_is(contract: Contract, batch: NDArray[Any]) -> Prepared:
    described, name = contract.input, contract.inputs[0].name
    if not isinstance(described, ImageInput):
        return Prepared(inputs={name: batch})
    slices = described.study.slices if isinstance(described.study, WholeVolume) else None
    placement = _as_on_the_wire(described.rows, described.columns, slices)
    images: tuple[tuple[None, None], ...] = ()
    if isinstance(described.study, EveryImage):
        check_count(described.study, len(batch))
        images = ((None, None),) * len(batch)
    return Prepared(inputs={name: batch}, placement=placement, images=images)


@lru_cache(maxsize=64)
def _as_on_the_wire(rows: int, columns: int, slices: int | None) -> Placement:
    placement = place((rows, columns), (rows, columns), Aspect.STRETCH)
    return placement if slices is None else replace(placement, slices=span(slices, 0, slices, slices, slices))


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
