"""Tensors on the wire, and codes: the smallest parts of a contract."""

from __future__ import annotations

import math
from enum import Enum, IntEnum
from typing import Annotated

import msgspec
import numpy as np

PIXELS = "PIXELS"
SAMPLES = "SAMPLES"
TEXT = "TEXT"
PROBABILITIES = "PROBABILITIES"
DECISIONS = "DECISIONS"
EVIDENCE = "EVIDENCE"
LABEL_MAP = "LABEL_MAP"
GENERATED_TEXT = "GENERATED_TEXT"
IS_COMPLETE = "IS_COMPLETE"
LOG_PROBABILITY = "LOG_PROBABILITY"
TOKEN_COUNT = "TOKEN_COUNT"  # noqa: S105 - counts a report's tokens; no secret

MAX_TENSOR_BYTES = 256 * 2**20

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]*\Z")]
Dimension = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]


class Datatype(str, Enum):
    """Triton's names of the element types (KServe v2 protocol)."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy dtype that holds such elements (object for BYTES)."""
        return _NUMPY[self]


_NUMPY: dict[Datatype, np.dtype[np.generic]] = {
    Datatype.BOOL: np.dtype(np.bool_),
    Datatype.UINT8: np.dtype("<u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("<i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BYTES: np.dtype(object),
}


class Decision(IntEnum):
    """What the served model decided about a label: values of the DECISIONS tensor."""

    NEGATIVE = 0
    INDETERMINATE = 1
    POSITIVE = 2


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of a contract: immutable, and unknown fields are errors."""


class TensorSpec(Struct, frozen=True, kw_only=True):
    """One tensor of the public model.

    Attributes:
        name: The tensor's name.
        dtype: Its element type.
        dims: Its shape without the batch axis; -1 is free.
    """

    name: Name
    dtype: Datatype
    dims: Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=8)]

    def __post_init__(self) -> None:
        """Bound what a caller could be made to allocate."""
        if 0 in self.dims:
            msg = f"tensor {self.name} has an axis of length 0"
            raise ValueError(msg)
        if self.smallest_bytes > MAX_TENSOR_BYTES:
            msg = f"tensor {self.name} is larger than {MAX_TENSOR_BYTES >> 20} MiB"
            raise ValueError(msg)

    @property
    def smallest_bytes(self) -> int:
        """What one item holds, free axes of length 1 (of BYTES, the references alone)."""
        return self.dtype.numpy.itemsize * math.prod(map(abs, self.dims))


class Code(Struct, frozen=True, kw_only=True):
    """A coded concept (DICOM PS3.3 table 8.8-1).

    Attributes:
        value: Code Value (0008,0100).
        scheme: Coding Scheme Designator (0008,0102): ``SCT``, ``MDC``, ``99RADSERVE``.
        meaning: Code Meaning (0008,0104).
        source: Where the code was read, so that a reviewer can check it.
    """

    value: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    scheme: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    meaning: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    source: Annotated[str, msgspec.Meta(max_length=256)] = ""
