"""Inputs as they will come, for the parity gate: random ones alone may never reach what a real one does."""

from __future__ import annotations

import zipfile
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.contracts import Task, TextInput
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
        where, found = "generated inputs", [wire_array(spec, sample.source) for sample in samples]
    elif spec.task is Task.TENSORS:
        return tuple(_arrays(spec, folder / spec.parity.data, inputs, size))
    else:
        where, found = "files of parity.data", read_folder(spec, folder / spec.parity.data, "parity.data", most=_MOST)
    rows = graph_rows(spec, found, tokenizer)
    return tuple(
        Batch(f"batch of {where}, from number {start + 1} on", {inputs[0].name: rows[start : start + size]})
        for start in range(0, len(rows), size)
    )


def wire_array(spec: Spec, source: Path | bytes | str) -> NDArray[Any]:
    """What goes on the wire of one input, without the batch axis.

    Args:
        spec: Says the input.
        source: A DICOM file or its content; of a text model the text.

    Raises:
        InputError: The file cannot be read, or is outside the model's scope.
        SpecError: The model takes no files.
    """
    if isinstance(spec.input, TextInput):
        return np.array([str(source).encode()], dtype=object)
    return to_wire(spec, source.encode() if isinstance(source, str) else source)


def read_folder(spec: Spec, folder: Path, field: str, *, most: int | None = None) -> list[NDArray[Any]]:
    """The wire's arrays of a folder's files, sorted by name.

    Args:
        spec: Says the input.
        folder: DICOM files; of a text model ``.txt`` files.
        field: The spec's field that names the folder, for messages.
        most: How many to read; None reads all.

    Raises:
        SpecError: There are none, or one cannot be read; the message counts it and does not name it.
    """
    pattern = "*.txt" if isinstance(spec.input, TextInput) else "*"
    files = (path for path in sorted(folder.rglob(pattern)) if path.is_file() and not path.name.startswith("."))
    found = [_read(spec, path, number, field) for number, path in enumerate(islice(files, most), start=1)]
    if not found:
        msg = f"{field}: {folder} holds no {'file' if pattern == '*' else '.txt file'}"
        raise SpecError(msg)
    return found


def _read(spec: Spec, path: Path, number: int, field: str) -> NDArray[Any]:
    try:
        return wire_array(spec, path.read_text(encoding="utf-8") if isinstance(spec.input, TextInput) else path)
    except (InputError, UnicodeDecodeError, OSError) as error:
        # The name of a file may be a patient's.
        why = error if isinstance(error, InputError) else "it is not UTF-8 text, or cannot be read"
        msg = f"{field}: file {number} of the folder, sorted by name: {why}"
        raise SpecError(msg) from error


def graph_rows(spec: Spec, found: Sequence[NDArray[Any]], tokenizer: TextTokenizer | None) -> NDArray[Any]:
    """What the first graph takes of the wire's arrays, batch axis in front.

    Args:
        spec: Says the input.
        found: As ``wire_array`` makes them.
        tokenizer: That of a text model.
    """
    if tokenizer is None:
        return np.stack(found)
    texts = [bytes(text).decode() for (text,) in found]
    return tokenizer.token_ids(texts, getattr(spec.input, "max_tokens", 0))


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
