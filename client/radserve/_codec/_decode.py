"""Responses to arrays; nothing unlike the contract passes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from radserve._codec._form import form_of
from radserve._codec._plain import Plain
from radserve._codec._wire import from_bytes
from radserve.contracts import CONTRACT_PARAMETER, parse_contract
from radserve.errors import ContractError, InferenceFailedError
from radserve.telemetry import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tritonclient.grpc import model_config_pb2

    from radserve._codec._form import Output
    from radserve.contracts import Contract

_FEW = 64


def read_contract(config: model_config_pb2.ModelConfig) -> Contract | None:
    """The contract in a model's configuration; None where it has none (a step, not a public model).

    Raises:
        ContractError: It is malformed, too new, or that of another model.
    """
    if CONTRACT_PARAMETER not in config.parameters:
        return None
    try:
        contract = parse_contract(config.parameters[CONTRACT_PARAMETER].string_value)
    except ContractError as error:
        msg = one_line(f"model {config.name}: {error}")
        raise ContractError(msg) from error
    if contract.name != config.name:
        msg = f"model {one_line(config.name)} carries the contract of another model: export it again"
        raise ContractError(msg)
    return contract


class Answer(Plain, frozen=True, kw_only=True):
    """A response that fits its contract.

    Attributes:
        arrays: By tensor name, batch axis in front.
        request_id: The id of the request.
    """

    arrays: dict[str, NDArray[Any]]
    request_id: str


def to_answer(contract: Contract, message: bytes, *, batch_size: int, request_id: str | None = None) -> Answer:
    """Compare a response with the contract and give its arrays.

    Args:
        contract: The contract the request was made by.
        message: What came back, a ``ModelInferResponse``.
        batch_size: Items in the request; ignored for a model without batch axis.
        request_id: The id that was sent; None leaves it unchecked.

    Raises:
        InferenceFailedError: A version, name, dtype or shape is not the
            contract's, a value is not a finite number, or it answers another request.
    """
    form = form_of(contract)
    if request_id is None or (known := form.seen.contents(message, batch_size, request_id)) is None:
        return _checked(contract, message, batch_size, request_id)
    arrays = {}
    for (name, shape), raw in zip(*known, strict=True):
        arrays[name] = _array(contract, request_id, form.outputs[name], shape, raw)
    return Answer(arrays=arrays, request_id=request_id)


def _checked(contract: Contract, message: bytes, batch_size: int, request_id: str | None) -> Answer:
    form = form_of(contract)
    try:
        response = service_pb2.ModelInferResponse.FromString(message)
    except DecodeError:
        raise untrusted(contract, request_id or "", "it is no message of Triton's") from None
    if response.model_name != contract.name or request_id not in (None, response.id):
        raise untrusted(contract, request_id or response.id, "it answers another request")
    if response.model_version != form.version:
        raise untrusted(contract, response.id, "another version of the model answered")
    outputs, contents = list(response.outputs), list(response.raw_output_contents)
    if len(outputs) != len(form.outputs) or form.outputs.keys() != {output.name for output in outputs}:
        raise untrusted(contract, response.id, "the answer's outputs are not those of the contract")
    if len(contents) != len(outputs):
        raise untrusted(contract, response.id, "the answer's outputs lack their contents")
    batch = (batch_size,) if contract.max_batch_size else ()
    arrays: dict[str, NDArray[Any]] = {}
    for output, raw in zip(outputs, contents, strict=True):
        expected, shape = form.outputs[output.name], tuple(output.shape)
        if output.datatype != expected.datatype or not _fits(shape, batch + expected.dims):
            msg = f"output {expected.name} has another type or shape than the contract says"
            raise untrusted(contract, response.id, msg)
        arrays[expected.name] = _array(contract, response.id, expected, shape, raw)
    if form.is_fixed:
        form.seen.remember(message, response, batch_size)
    return Answer(arrays=arrays, request_id=response.id)


def _array(contract: Contract, request_id: str, expected: Output, shape: tuple[int, ...], raw: bytes) -> NDArray[Any]:
    try:
        array = from_bytes(raw, expected.dtype, shape)
    except ValueError:
        raise untrusted(contract, request_id, f"output {expected.name} does not fill its shape") from None
    if expected.is_float and not _is_finite(array):
        raise untrusted(contract, request_id, f"output {expected.name} holds values that are not finite numbers")
    return array


def _is_finite(array: NDArray[Any]) -> bool:
    # Of few values, NumPy's own way takes several times as long. What is not finite makes the sum so, too.
    if array.size <= _FEW and math.isfinite(sum(array.reshape(-1).tolist())):
        return True
    return bool(np.isfinite(array).all())


def _fits(shape: tuple[int, ...], want: tuple[int, ...]) -> bool:
    if len(shape) != len(want):
        return False
    return all(have >= 0 and dim in (-1, have) for have, dim in zip(shape, want, strict=True))


def untrusted(contract: Contract, request_id: str, reason: str) -> InferenceFailedError:
    """The error of an answer that must not be shown to anybody."""
    msg = f"the answer of model {contract.name} cannot be trusted: {reason}"
    return InferenceFailedError(msg, model=contract.name, version=contract.version, request_id=request_id)
