"""What parent and child say to each other: msgpack behind its length, arrays as their raw bytes.

The child has read a file that nobody vouches for, so nothing it says is more
than data: no pickles, every length bounded, every field checked by its type.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
import numpy as np

from radserve.errors import ConversionError
from radserve_export.network import Conversion
from radserve_export.sandbox.text import LONGEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.network import Arrays

LENGTH_BYTES = 8
MAX_BYTES = 4 * 2**30
NETWORK = ""  # the part that is the network itself
MAX_NOTES = 20

Kind = Literal["SpecError", "UntrustedModelError", "ConversionError", "MissingExtraError", "memory", "unconfined"]
_Number = Literal[
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]
_Name = Annotated[str, msgspec.Meta(max_length=1024)]
_Note = Annotated[str, msgspec.Meta(max_length=LONGEST)]
_Length = Annotated[int, msgspec.Meta(ge=0, le=MAX_BYTES)]
_Version = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[\w.+-]+\Z")]


class Numbers(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An array of numbers, in the machine's own byte order."""

    name: _Name
    dtype: _Number
    shape: Annotated[tuple[_Length, ...], msgspec.Meta(max_length=16)]
    data: bytes


class Texts(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An array of byte strings."""

    name: _Name
    shape: Annotated[tuple[_Length, ...], msgspec.Meta(max_length=16)]
    data: tuple[bytes, ...]


Tensors: TypeAlias = tuple[Numbers | Texts, ...]


class Convert(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Check, load and convert a model; answered by Converted."""

    path: str
    conversion: Conversion
    custom_objects: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let the original answer; answered by Answered."""

    part: str
    inputs: Tensors


class Converted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Graphs by part, NETWORK among them, what is known of the model, and what its user should know."""

    graphs: dict[_Name, bytes]
    vocabulary: Annotated[int, msgspec.Meta(ge=0, le=2**40)] | None
    tokenizer: Annotated[bytes, msgspec.Meta(max_length=2**26)] | None
    tools: dict[_Version, _Version]
    notes: Annotated[tuple[_Note, ...], msgspec.Meta(max_length=MAX_NOTES)] = ()


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the original answered."""

    outputs: Tensors


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Why there is no answer."""

    kind: Kind
    message: str = ""


Request: TypeAlias = Convert | Run
Answer: TypeAlias = Converted | Answered | Failed

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """A message without its length in front."""
    return msgspec.msgpack.encode(message)


def decode_request(content: bytes) -> Request:
    """Read what the parent said."""
    return _requests.decode(content)


def decode_answer(content: bytes) -> Answer:
    """Read what the child said.

    Raises:
        ValueError: It is none of the answers.
    """
    return _answers.decode(content)


def pack(arrays: Arrays) -> Tensors:
    """Arrays as they are sent.

    Raises:
        ConversionError: Their elements are neither numbers nor text.
    """
    packed: list[Numbers | Texts] = []
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.kind in "OSU":
            texts = tuple(one.encode() if isinstance(one, str) else bytes(one) for one in array.reshape(-1).tolist())
            packed.append(Texts(name=name, shape=array.shape, data=texts))
            continue
        try:
            packed.append(
                msgspec.convert(
                    {"type": "Numbers", "name": name, "dtype": array.dtype.name, "shape": array.shape}
                    | {"data": array.tobytes()},
                    Numbers,
                )
            )
        except msgspec.ValidationError as error:
            msg = f"tensor {name} has elements of type {array.dtype}, which cannot be served"
            raise ConversionError(msg) from error
    return tuple(packed)


def unpack(tensors: Tensors) -> dict[str, NDArray[np.generic]]:
    """Arrays that were sent.

    Raises:
        ValueError: Shape and content do not belong together.
    """
    return {tensor.name: _array(tensor) for tensor in tensors}


def _array(tensor: Numbers | Texts) -> NDArray[np.generic]:
    if isinstance(tensor, Numbers):
        return np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape).copy()
    if math.prod(tensor.shape) != len(tensor.data):
        msg = f"{tensor.name}: shape and content differ"
        raise ValueError(msg)
    texts = np.empty(len(tensor.data), object)
    texts[:] = tensor.data
    return texts.reshape(tensor.shape)
