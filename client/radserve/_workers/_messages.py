"""Messages between this process and a worker, over pipes.

A hostile file may have taken over the worker that answers: nothing of what it
says is unpickled, claims of sizes are bounded, and arrays are of the wire's types.
"""

from __future__ import annotations

import math
import pickle
import struct
from typing import IO, Any

import msgspec
import numpy as np

from radserve import errors
from radserve._codec import Prepared
from radserve.contracts import Datatype
from radserve.errors import DecodeError, RadserveError

OUT_OF_MEMORY = 3  # exit status of a worker that cannot even take an input, or give its answer
_LENGTH = struct.Struct("<Q")
_MOST_HEADER_BYTES = 2**24
_ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, RadserveError)
}
_DTYPES = {datatype.numpy.str: datatype.numpy for datatype in Datatype if not datatype.numpy.hasobject}


class AnswerError(ValueError):
    """A worker answered something unexpected."""


class _Refusal(msgspec.Struct, frozen=True):
    kind: str
    said: tuple[str, ...]
    attributes: dict[str, str | int | float | bool | None]


class _Answer(msgspec.Struct, frozen=True):
    prepared: Prepared | None = None
    refusal: _Refusal | None = None


class _Array(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]


def too_large(memory_bytes: int) -> DecodeError:
    """What is said of an input that a worker has not the memory for."""
    return DecodeError(
        f"the input takes more than {memory_bytes >> 20} MiB of memory, the limit of a worker process: it is damaged,"
        " or one for predict(), which sets no limit",
        is_final=False,
    )


def pack_request(step: object) -> bytes:
    """Make a message of a step.

    Raises:
        Exception: It holds something that stays in its process, such as an open file.
    """
    return pickle.dumps(step, protocol=5)


def send(stream: IO[bytes], message: bytes) -> None:
    """Write one message."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def receive_request(stream: IO[bytes]) -> Any:  # noqa: ANN401 - a step
    """Read one step, which this project's own process has packed.

    Raises:
        EOFError: The other side has ended.
    """
    (size,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    return pickle.loads(_read(stream, size))  # noqa: S301 - of who started this one


def send_answer(stream: IO[bytes], answer: Prepared | RadserveError | None) -> None:
    """Write one answer; arrays follow as they lie in memory, without a copy."""
    arrays: list[np.ndarray[Any, Any]] = []

    def described(value: Any) -> _Array:  # noqa: ANN401 - what msgspec does not know
        if isinstance(value, np.generic):  # a number that numpy computed
            return value.item()  # type: ignore[no-any-return]
        arrays.append(np.ascontiguousarray(value))
        return _Array(arrays[-1].dtype.str, arrays[-1].shape)

    packed = _Answer()
    if isinstance(answer, RadserveError):
        attributes = {name: value for name, value in vars(answer).items() if name != "__notes__"}
        packed = _Answer(refusal=_Refusal(type(answer).__name__, tuple(map(str, answer.args)), attributes))
    elif answer is not None:
        packed = _Answer(prepared=answer)
    send(stream, msgspec.msgpack.encode(packed, enc_hook=described))
    for array in arrays:
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def receive_answer(stream: IO[bytes], most_bytes: int) -> Prepared | RadserveError | None:
    """Read one answer: what was prepared, why it was not, or that the worker is ready.

    Args:
        stream: The worker's.
        most_bytes: The largest that arrays may be.

    Raises:
        EOFError: The other side has ended.
        AnswerError: It is none that the worker could have given.
    """
    arrays: list[np.ndarray[Any, Any]] = []

    def allocated(_: type, value: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - what msgspec has read
        described = msgspec.convert(value, _Array)
        dtype = _DTYPES[described.dtype]
        size = dtype.itemsize * math.prod(described.shape)
        if min(described.shape, default=0) < 0 or size + sum(array.nbytes for array in arrays) > most_bytes:
            raise ValueError
        arrays.append(np.empty(described.shape, dtype))
        return arrays[-1]

    (size,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    if size > _MOST_HEADER_BYTES:
        raise AnswerError
    header = _read(stream, size)
    try:
        answer = msgspec.msgpack.decode(header, type=_Answer, dec_hook=allocated)
        refusal = None if answer.refusal is None else _error(answer.refusal)
    except (msgspec.ValidationError, msgspec.DecodeError, KeyError, ValueError, MemoryError, RecursionError):
        raise AnswerError from None
    for array in arrays:
        _fill(stream, array.reshape(-1).view(np.uint8).data)
    return refusal or answer.prepared


def _error(refusal: _Refusal) -> RadserveError:
    kind = _ERRORS[refusal.kind]
    error: RadserveError = kind.__new__(kind)
    error.args = refusal.said
    vars(error).update(refusal.attributes)
    return error


def _read(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    _fill(stream, memoryview(data))
    return data


def _fill(stream: IO[bytes], view: memoryview) -> None:
    while view:
        count = stream.readinto(view)  # type: ignore[attr-defined]  # of every binary stream
        if not count:
            raise EOFError
        view = view[count:]
