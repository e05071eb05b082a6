"""Generated chest radiographs as the client would send them.

Imports no TensorFlow: worker processes start from here.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

from radserve.dicom import read_image
from radserve.preprocess import image_to_wire
from radserve_export.synthetic.chest_xray import make_sample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from radserve.contracts import ImageInput
    from radserve_export.from_keras.training import Progress
    from radserve_export.synthetic import Split

_CHUNK = 50
# Below this many samples, starting processes takes longer than they save.
_ALONE = 500
_MOST_WORKERS = 4


def wire_images(
    count: int, described: ImageInput, *, seed: int, split: Split, progress: Progress
) -> tuple[NDArray[np.generic], list[str]]:
    """Generate radiographs and read and preprocess their files with the SDK.

    Args:
        count: How many.
        described: The model's input.
        seed: Of the generator.
        split: Of the generator.
        progress: Told after every few images.

    Returns:
        Wire arrays ``(count, rows, columns, channels)`` and the label of each.
    """
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    if count < _ALONE:
        return _collect(map(_chunk, chunks, repeat(described), repeat(seed), repeat(split)), count, progress)
    executor = ProcessPoolExecutor(
        min(_MOST_WORKERS, os.cpu_count() or 1),
        # A forked child would inherit TensorFlow's and BLAS's locks, but not the threads that hold them.
        mp_context=get_context("spawn"),
        # Ctrl-C is the parent's business: it cancels what is left.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        parts = executor.map(_chunk, chunks, repeat(described), repeat(seed), repeat(split))
        return _collect(parts, count, progress)
    finally:
        executor.shutdown(cancel_futures=True)


def _chunk(
    indices: range, described: ImageInput, seed: int, split: Split
) -> tuple[list[NDArray[np.generic]], list[str]]:
    samples = [make_sample(index, seed=seed, split=split) for index in indices]
    wire: list[NDArray[np.generic]] = [image_to_wire(read_image(sample.source), described) for sample in samples]
    return wire, [sample.label for sample in samples]


def _collect(
    parts: Iterable[tuple[list[NDArray[np.generic]], list[str]]], count: int, progress: Progress
) -> tuple[NDArray[np.generic], list[str]]:
    images: list[NDArray[np.generic]] = []
    labels: list[str] = []
    for wire, names in parts:
        images += wire
        labels += names
        progress("Generating chest radiographs", len(labels), count)
    return np.stack(images), labels
