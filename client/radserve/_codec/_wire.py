"""Arrays to and from the bytes of the KServe v2 protocol."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc import service_pb2

from radserve._codec._field import delimited
from radserve._codec._form import form_of
from radserve._codec._plain import Plain
from radserve.errors import InputError
from radserve.options import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from radserve.contracts import Contract

    Packed: TypeAlias = bytes | memoryview

_LENGTH = struct.Struct("<I")
_CONTENTS = service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER


class Request(Plain, frozen=True, kw_only=True):
    """A ``ModelInferRequest``, whose contents are copied into the message where that is sent, and nowhere before.

    Attributes:
        model: Its name.
        version: The version that is asked for, no other.
        id: For the server's log.
        head: All of the message but the contents.
        contents: Of each input tensor, what lies one behind the other on the batch axis.
        sizes: Bytes of each input tensor.
    """

    model: str
    version: int
    id: str
    head: bytes
    contents: tuple[Sequence[Packed], ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return len(self.head) + sum(len(delimited(_CONTENTS, size)) + size for size in self.sizes)

    def encoded(self) -> bytes:
        """The message."""
        pieces: list[Packed] = [self.head]
        for size, parts in zip(self.sizes, self.contents, strict=True):
            pieces.append(delimited(_CONTENTS, size))
            pieces += parts
        return b"".join(pieces)


def to_request(
    contract: Contract,
    arrays: Mapping[str, NDArray[Any]],
    *,
    request_id: str,
    priority: Priority | None = None,
    queue_timeout_s: float | None = None,
) -> Request:
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
        tuple([array.shape for array in given]),
        request_id=request_id,
        priority=priority,
        queue_timeout_s=queue_timeout_s,
    )


def to_joint_request(
    contract: Contract,
    items: Sequence[Sequence[Packed]],
    shapes: tuple[tuple[int, ...], ...],
    *,
    request_id: str,
    priority: Priority | None = None,
    queue_timeout_s: float | None = None,
) -> Request:
    """Make one request of several inputs, one behind the other on the batch axis.

    Args:
        contract: The model's contract; its version is asked for, no other.
        items: Of each input, the contents of its tensors, in the contract's order.
        shapes: Of each tensor, of all inputs together.
        request_id: An id for the server's log.
        priority: Triton's priority level; None leaves the model's default. Of a model
            that takes all requests alike only ROUTINE is accepted, and not sent.
        queue_timeout_s: How long the request may wait in the server's queue,
            where the model's queue policy allows a request to say.
    """
    own = service_pb2.ModelInferRequest(id=request_id)
    if priority is not None:
        if not isinstance(priority, Priority):
            msg = "priority must be one of Priority.STAT, URGENT and ROUTINE"
            raise InputError(msg)
        if contract.priorities is not False:
            own.parameters["priority"].uint64_param = int(priority)
        elif priority is not Priority.ROUTINE:
            msg = f"{contract.name} has no queue, or no batches, and takes all requests alike: leave priority out"
            raise InputError(msg)
    if queue_timeout_s is not None:
        own.parameters["timeout"].int64_param = max(1, int(queue_timeout_s * 1e6))
    contents = tuple(zip(*items, strict=True))
    return Request(
        model=contract.name,
        version=contract.version,
        id=request_id,
        head=form_of(contract).head(shapes) + own.SerializeToString(),  # one behind the other, messages are merged
        contents=contents,
        sizes=tuple([sum(map(nbytes, parts)) for parts in contents]),
    )


def nbytes(content: Packed) -> int:
    """Size of a buffer."""
    return len(content) if isinstance(content, bytes) else content.nbytes


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
    return _pack(array) if array.dtype.kind in "OUS" else np.ascontiguousarray(array).data


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


def from_bytes(raw: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """One output tensor.

    Raises:
        ValueError: The bytes do not make the shape.
    """
    if not dtype.hasobject:
        return np.frombuffer(raw, dtype).reshape(shape)
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
