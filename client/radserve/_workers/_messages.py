"""Messages between this process and a worker, over pipes."""

from __future__ import annotations

import pickle
import struct
from dataclasses import is_dataclass
from enum import Enum
from io import BytesIO
from typing import IO, Any

from radserve.errors import DecodeError, RadserveError

OUT_OF_MEMORY = 3  # exit status of a worker that cannot even take an input, or give its answer
_LENGTH = struct.Struct("<Q")
# What numpy's arrays are made of again, by the names of numpy 1.26 and 2.
_NUMPY = {"_frombuffer", "_reconstruct", "dtype", "ndarray", "scalar"}


def too_large(memory_bytes: int) -> DecodeError:
    """What is said of an input that a worker has not the memory for."""
    return DecodeError(
        f"the input takes more than {memory_bytes >> 20} MiB of memory, the limit of a worker process: it is damaged,"
        " or one for predict(), which sets no limit"
    )


def send(stream: IO[bytes], message: object) -> None:
    """Write one message."""
    data = pickle.dumps(message, protocol=5)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes], most_bytes: int | None = None) -> bytearray:
    """Read one message, still packed.

    Raises:
        EOFError: The other side has ended.
        ValueError: The message claims to be larger than ``most_bytes``.
    """
    (size,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    if most_bytes is not None and size > most_bytes:
        raise ValueError
    return _read(stream, size)


def _read(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = stream.readinto(view)  # type: ignore[attr-defined]  # of every binary stream
        if not count:
            raise EOFError
        view = view[count:]
    return data


def unpack_request(data: bytearray) -> Any:  # noqa: ANN401 - a step
    """What this project's own process has packed."""
    return pickle.loads(data)  # noqa: S301 - of who started this one


def unpack_answer(data: bytearray) -> Any:  # noqa: ANN401 - what was prepared, or an error
    """What a worker has packed, which a hostile file may have taken over: plain values, arrays and errors alone.

    Raises:
        UnpicklingError: There is something else in it.
    """
    return _Answer(BytesIO(data)).load()


class _Answer(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - pickle's signature
        package = module.partition(".")[0]
        if (package == "numpy" and name in _NUMPY) or package == "radserve":
            found = super().find_class(module, name)
            kind = found if isinstance(found, type) else object
            if package == "numpy" or is_dataclass(kind) or issubclass(kind, RadserveError | Enum):
                return found
        msg = "a worker answered something unexpected"
        raise pickle.UnpicklingError(msg)
