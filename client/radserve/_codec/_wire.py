"""Arrays to and from the bytes of the KServe v2 protocol."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc import service_pb2

from radserve.errors import InputError
from radserve.options import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from radserve.contracts import Contract, Datatype

    Packed: TypeAlias = bytes | NDArray[Any]

_LENGTH = struct.Struct("<I")


def to_request(
    contract: Contract,
    arrays: Mapping[str, NDArray[Any]],
    *,
    request_id: str,
    priority: Priority | None = None,
    queue_timeout_s: float | None = None,
) -> service_pb2.ModelInferRequest:
    """Make a request of arrays that fit the contract; as ``to_joint_request``, of one input.

    Args:
        contract: The model's contract.
        arrays: By tensor name, batch axis in front.
        request_id: As there.
        priority: As there.
        queue_timeout_s: As there.
    """
    given = [arrays[tensor.name] for tensor in contract.inputs]
    return to_joint_request(
        contract,
        [[packed(array) for array in given]],
        [array.shape for array in given],
        request_id=request_id,
        priority=priority,
        queue_timeout_s=queue_timeout_s,
    )


def to_joint_request(
    contract: Contract,
    items: Sequence[Sequence[Packed]],
    shapes: Sequence[tuple[int, ...]],
    *,
    request_id: str,
    priority: Priority | None = None,
    queue_timeout_s: float | None = None,
) -> service_pb2.ModelInferRequest:
    """Make one request of several inputs, one behind the other on the batch axis.

    Args:
        contract: The model's contract; its version is asked for, no other.
        items: Of each input, the contents of its tensors, in the contract's order.
        shapes: Of each tensor, of all inputs together.
        request_id: An id for the server's log.
        priority: Triton's priority level; None leaves the model's default.
        queue_timeout_s: How long the request may wait in the server's queue,
            where the model's queue policy allows a request to say.
    """
    request = service_pb2.ModelInferRequest(
        model_name=contract.name, model_version=str(contract.version), id=request_id
    )
    if priority is not None:
        if not isinstance(priority, Priority):
            msg = "priority must be one of Priority.STAT, URGENT and ROUTINE"
            raise InputError(msg)
        request.parameters["priority"].uint64_param = int(priority)
    if queue_timeout_s is not None:
        request.parameters["timeout"].int64_param = max(1, int(queue_timeout_s * 1e6))
    for tensor, shape, parts in zip(contract.inputs, shapes, zip(*items, strict=True), strict=True):
        request.inputs.add(name=tensor.name, datatype=tensor.dtype.value, shape=shape)
        request.raw_input_contents.append(b"".join(parts))
    for tensor in contract.outputs:
        request.outputs.add(name=tensor.name)
    return request


def utf8(text: str) -> bytes:
    """Encode a text.

    Raises:
        InputError: It holds lone surrogates. Python's own exception would carry the text.
    """
    encoded = text.encode(errors="replace")
    if encoded.count(b"?") != text.count("?"):
        msg = "the text holds lone surrogates: decode it with its own character set"
        raise InputError(msg)
    return encoded


def packed(array: NDArray[Any]) -> Packed:
    """An array as a buffer of what goes on the wire; copied only where it does not lie in memory like that."""
    return _pack(array) if array.dtype.kind in "OUS" else np.ascontiguousarray(array)


def _pack(array: NDArray[Any]) -> bytes:
    """BYTES elements, each after its length (4 bytes, little endian)."""
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        if not isinstance(element, str | bytes):
            msg = f"elements of a BYTES tensor must be str or bytes, not {type(element).__name__}"
            raise InputError(msg)
        encoded = utf8(element) if isinstance(element, str) else element
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def from_bytes(raw: bytes, datatype: Datatype, shape: tuple[int, ...]) -> NDArray[Any]:
    """One output tensor.

    Raises:
        ValueError: The bytes do not make the shape.
    """
    if not datatype.numpy.hasobject:
        return np.frombuffer(raw, dtype=datatype.numpy).reshape(shape)
    elements: list[bytes] = []
    place, count = 0, math.prod(shape)
    while place < len(raw):
        if len(elements) >= count or place + _LENGTH.size > len(raw):
            raise ValueError(place)
        (length,) = _LENGTH.unpack_from(raw, place)
        place += _LENGTH.size + length
        if place > len(raw):
            raise ValueError(place)
        elements.append(raw[place - length : place])
    flat = np.empty(len(elements), dtype=object)
    flat[:] = elements
    return flat.reshape(shape)
