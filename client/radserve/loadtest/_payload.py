"""What is sent: arrays of real inputs, read once, or made of the contract."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve._codec import to_request
from radserve.contracts import ImageInput, TextInput, WaveformInput
from radserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from radserve.contracts import Contract, TensorSpec

    Arrays = dict[str, NDArray[Any]]

MOST_BYTES = 64 * 2**20  # of inputs, in each worker
MOST_INPUTS = 256
_SYNTHETIC = 16
_FREE = 16  # length of an axis that the contract leaves open
_WORDS = (
    "chest",
    "film",
    "without",
    "effusion",
    "lungs",
    "clear",
    "heart",
    "normal",
    "acute",
    "finding",
    "nodule",
    "left",
)
_TEXT_BYTES = 400


def synthetic(contract: Contract, seed: int) -> list[Arrays]:
    """Inputs of the contract's types and shapes, the same for the same seed.

    Noise for images and waveforms, words for texts. Integers of a model of task
    ``tensors`` may be anything, such as places in a table, and are 0.
    """
    chance = np.random.default_rng(seed)
    size = sum(tensor.dtype.numpy.itemsize * math.prod(_dims(tensor)) for tensor in contract.inputs)
    count = max(1, min(_SYNTHETIC, MOST_BYTES // size))
    batch = (1,) if contract.max_batch_size else ()
    return [
        {tensor.name: _noise(contract, tensor, (*batch, *_dims(tensor)), chance) for tensor in contract.inputs}
        for _ in range(count)
    ]


def _dims(tensor: TensorSpec) -> list[int]:
    return [_FREE if dim < 0 else dim for dim in tensor.dims]


def _noise(contract: Contract, tensor: TensorSpec, shape: tuple[int, ...], chance: np.random.Generator) -> NDArray[Any]:
    dtype = tensor.dtype.numpy
    if isinstance(contract.input, TextInput):
        most = min(_TEXT_BYTES, contract.input.max_bytes)
        return np.full(shape, " ".join(chance.choice(_WORDS, 100))[:most].encode(), dtype=object)
    if dtype.hasobject:
        return np.full(shape, b"canary", dtype=object)
    if isinstance(contract.input, WaveformInput):
        return chance.normal(0, 200, shape).astype(dtype)
    if isinstance(contract.input, ImageInput) and dtype.kind == "u":
        return chance.integers(0, 1 << 8 * dtype.itemsize, shape).astype(dtype)
    if dtype.kind == "f":
        return chance.random(shape).astype(dtype)
    return np.zeros(shape, dtype=dtype)


def rows_of(contract: Contract, prepared: Iterable[Arrays]) -> list[Arrays]:
    """Single inputs, batch axis in front, of what ``Model.prepare`` gave: of a study, one for each image.

    Stops when there are so many that more would only cost memory.
    """
    rows: list[Arrays] = []
    size = 0
    for arrays in prepared:
        count = len(next(iter(arrays.values()))) if contract.max_batch_size else 1
        for place in range(count):
            row = {name: array[place : place + 1] for name, array in arrays.items()} if count > 1 else arrays
            rows.append(row)
            size += sum(array.nbytes for array in row.values())
            if len(rows) >= MOST_INPUTS or size >= MOST_BYTES:
                return rows
    return rows


def payloads_of(contract: Contract, rows: Sequence[Arrays], per_request: int) -> list[Arrays]:
    """Requests of several rows each; every row is in as many of them as every other, as far as memory allows.

    Args:
        contract: Of the model.
        rows: At least one, batch axis in front.
        per_request: How many rows a request has.

    Raises:
        InputError: A model without batch axis cannot take several.
    """
    if per_request == 1:
        return list(rows)
    if not contract.max_batch_size:
        msg = f"model {contract.name} has no batch axis: send one input in each request"
        raise InputError(msg)
    alike: dict[tuple[tuple[int, ...], ...], list[Arrays]] = defaultdict(list)
    for row in rows:
        alike[tuple(array.shape for array in row.values())].append(row)
    payloads = []
    for group in alike.values():
        size = per_request * sum(array.nbytes for array in group[0].values())
        count = max(1, min(math.lcm(len(group), per_request) // per_request, MOST_BYTES // len(alike) // size))
        for number in range(count):
            chosen = [group[(number * per_request + place) % len(group)] for place in range(per_request)]
            payloads.append({name: np.concatenate([row[name] for row in chosen]) for name in chosen[0]})
    return payloads


def mean_bytes(contract: Contract, payloads: Sequence[Arrays]) -> int:
    """Mean size of a request's message."""
    sizes = [to_request(contract, arrays, request_id="loadtest-0-0").size for arrays in payloads]
    return sum(sizes) // len(sizes)
