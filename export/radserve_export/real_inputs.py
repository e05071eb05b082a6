"""Inputs as they will come, for the parity gate: random ones alone may never reach what a real one does."""

from __future__ import annotations

import zipfile
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import Task
from radserve.errors import InputError, SpecError
from radserve_export.datasets import to_wire
from radserve_export.parity import SEED, Batch
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve.contracts import TensorSpec
    from radserve_export.spec import Spec
    from radserve_export.tokenizer import TextTokenizer

_MOST = 64
_GENERATED = 16


def real_batches(
    spec: Spec, folder: Path, inputs: Sequence[TensorSpec], tokenizer: TextTokenizer | None
) -> tuple[Batch, ...]:
    """Batches of the inputs that a spec names, or else of those its generator makes.

    Args:
        spec: The spec.
        folder: Where it lies.
        inputs: What the first graph takes, batch axis left out.
        tokenizer: That of a text model.

    Returns:
        Batches no larger than the served model takes; none where the spec names nothing.

    Raises:
        SpecError: The data cannot be read, or is none that the model takes.
    """
    size = spec.serving.max_batch_size or 1
    if spec.parity.data is None:
        plan = spec.evaluation or spec.training
        if plan is None:
            return ()
        samples = generate(plan.generator, _GENERATED, seed=SEED, split=Split.TRAIN)
        where, rows = "generated inputs", [_row(spec, sample.source, tokenizer) for sample in samples]
    elif spec.task is Task.TENSORS:
        return tuple(_arrays(spec, folder / spec.parity.data, inputs, size))
    else:
        where, rows = "files of parity.data", _files(spec, folder / spec.parity.data, tokenizer)
    return tuple(
        Batch(f"batch of {where}, from number {start + 1} on", {inputs[0].name: np.stack(rows[start : start + size])})
        for start in range(0, len(rows), size)
    )


def _row(spec: Spec, source: Path | bytes | str, tokenizer: TextTokenizer | None) -> NDArray[np.generic]:
    if tokenizer is None:
        return to_wire(spec, source.encode() if isinstance(source, str) else source)
    return np.asarray(tokenizer.token_ids([str(source)], getattr(spec.input, "max_tokens", 0))[0])


def _files(spec: Spec, folder: Path, tokenizer: TextTokenizer | None) -> list[NDArray[np.generic]]:
    pattern = "*" if tokenizer is None else "*.txt"
    found = (path for path in sorted(folder.rglob(pattern)) if path.is_file() and not path.name.startswith("."))
    rows = [_read(spec, path, number, tokenizer) for number, path in enumerate(islice(found, _MOST), start=1)]
    if not rows:
        msg = f"parity.data: {folder} holds no {'file' if tokenizer is None else '.txt file'}"
        raise SpecError(msg)
    return rows


def _read(spec: Spec, path: Path, number: int, tokenizer: TextTokenizer | None) -> NDArray[np.generic]:
    try:
        return _row(spec, path if tokenizer is None else path.read_text(encoding="utf-8"), tokenizer)
    except (InputError, UnicodeDecodeError, OSError) as error:
        # The name of a file may be a patient's.
        why = error if isinstance(error, InputError) else "it is not UTF-8 text, or cannot be read"
        msg = f"parity.data: file {number} of the folder, sorted by name: {why}"
        raise SpecError(msg) from error


def _arrays(spec: Spec, path: Path, inputs: Sequence[TensorSpec], size: int) -> Iterator[Batch]:
    names = ", ".join(tensor.name for tensor in inputs)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {tensor.name: archive[tensor.name] for tensor in inputs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        msg = f"parity.data: {path} is no .npz with the arrays {names} ({type(error).__name__})"
        raise SpecError(msg) from error
    batched = spec.serving.max_batch_size > 0
    for tensor in inputs:
        shape = arrays[tensor.name].shape[1:] if batched else arrays[tensor.name].shape
        fits = len(shape) == len(tensor.dims) and all(d in (-1, n) for n, d in zip(shape, tensor.dims, strict=True))
        if not fits or arrays[tensor.name].dtype != tensor.dtype.numpy:
            msg = f"parity.data: {tensor.name} must be {tensor.dtype.numpy.name} {[*tensor.dims]} after the batch axis"
            raise SpecError(msg)
    if batched and (len({len(array) for array in arrays.values()}) > 1 or not len(next(iter(arrays.values())))):
        msg = f"parity.data: the arrays {names} must have as many rows as one another, one at least"
        raise SpecError(msg)
    if not batched:
        yield Batch("call with the arrays of parity.data", arrays)
        return
    for start in range(0, len(next(iter(arrays.values()))), size):
        part = {name: array[start : start + size] for name, array in arrays.items()}
        yield Batch(f"batch of parity.data, from row {start} on", part)
