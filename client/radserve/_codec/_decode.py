"""Responses to arrays; nothing unlike the contract passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radserve._codec._plain import Plain
from radserve._codec._wire import from_bytes
from radserve.contracts import CONTRACT_PARAMETER, parse_contract
from radserve.errors import ContractError, InferenceFailedError
from radserve.telemetry import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tritonclient.grpc import model_config_pb2, service_pb2

    from radserve.contracts import Contract, TensorSpec


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


def to_answer(
    contract: Contract, response: service_pb2.ModelInferResponse, *, batch_size: int, request_id: str | None = None
) -> Answer:
    """Compare a response with the contract and give its arrays.

    Args:
        contract: The contract the request was made by.
        response: What came back.
        batch_size: Items in the request; ignored for a model without batch axis.
        request_id: The id that was sent; None leaves it unchecked.

    Raises:
        InferenceFailedError: A version, name, dtype or shape is not the
            contract's, a value is not a finite number, or it answers another request.
    """
    if response.model_name != contract.name or request_id not in (None, response.id):
        raise untrusted(contract, request_id or response.id, "it answers another request")
    if response.model_version != str(contract.version):
        raise untrusted(contract, response.id, "another version of the model answered")
    outputs, contents = list(response.outputs), list(response.raw_output_contents)
    expected = {tensor.name: tensor for tensor in contract.outputs}
    if len(outputs) != len(expected) or expected.keys() != {output.name for output in outputs}:
        raise untrusted(contract, response.id, "the answer's outputs are not those of the contract")
    if len(contents) != len(outputs):
        raise untrusted(contract, response.id, "the answer's outputs lack their contents")
    arrays: dict[str, NDArray[Any]] = {}
    for output, raw in zip(outputs, contents, strict=True):
        tensor = expected[output.name]
        shape = tuple(output.shape)
        if output.datatype != tensor.dtype.value or not _fits(contract, tensor, shape, batch_size):
            raise untrusted(
                contract, response.id, f"output {tensor.name} has another type or shape than the contract says"
            )
        try:
            array = from_bytes(raw, tensor.dtype, shape)
        except ValueError:
            raise untrusted(contract, response.id, f"output {tensor.name} does not fill its shape") from None
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise untrusted(contract, response.id, f"output {tensor.name} holds values that are not finite numbers")
        arrays[tensor.name] = array
    return Answer(arrays=arrays, request_id=response.id)


def _fits(contract: Contract, tensor: TensorSpec, shape: tuple[int, ...], batch_size: int) -> bool:
    want = (batch_size, *tensor.dims) if contract.max_batch_size else tensor.dims
    if shape == want:
        return True
    return len(shape) == len(want) and all(dim in (-1, have) for have, dim in zip(shape, want, strict=True))


def untrusted(contract: Contract, request_id: str, reason: str) -> InferenceFailedError:
    """The error of an answer that must not be shown to anybody."""
    msg = f"the answer of model {contract.name} cannot be trusted: {reason}"
    return InferenceFailedError(msg, model=contract.name, version=contract.version, request_id=request_id)
