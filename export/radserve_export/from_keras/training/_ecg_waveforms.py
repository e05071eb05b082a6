"""Generated ECGs as the client would send them.

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

from radserve.preprocess import waveform_to_wire
from radserve_export.synthetic.ecg_rhythm import record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from radserve.contracts import WaveformInput
    from radserve_export.from_keras.training import Progress
    from radserve_export.synthetic import Split

_CHUNK = 50
# Below this many samples, starting processes takes longer than they save.
_ALONE = 300
_MOST_WORKERS = 4


def wire_waveforms(
    count: int, described: WaveformInput, *, seed: int, split: Split, progress: Progress
) -> tuple[NDArray[np.int16], list[str]]:
    """Generate recordings and bring them to the wire with the SDK's preprocessing.

    No DICOM file is written on the way: it would hold the same samples (tested),
    and take three times as long.

    Args:
        count: How many.
        described: The model's input.
        seed: Of the generator.
        split: Of the generator.
        progress: Told after every few recordings.

    Returns:
        Wire arrays ``(count, samples, leads)`` and the rhythm of each.
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
    indices: range, described: WaveformInput, seed: int, split: Split
) -> tuple[list[NDArray[np.int16]], list[str]]:
    recordings = [record(index, seed=seed, split=split) for index in indices]
    wire = [waveform_to_wire(recording.to_waveform(), described) for recording in recordings]
    return wire, [recording.label for recording in recordings]


def _collect(
    parts: Iterable[tuple[list[NDArray[np.int16]], list[str]]], count: int, progress: Progress
) -> tuple[NDArray[np.int16], list[str]]:
    waveforms: list[NDArray[np.int16]] = []
    labels: list[str] = []
    for wire, names in parts:
        waveforms += wire
        labels += names
        progress("Generating ECGs", len(labels), count)
    return np.stack(waveforms), labels
