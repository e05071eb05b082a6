"""Generated training data as the client would send it.

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

from radserve.contracts import ImageInput, WaveformInput
from radserve.dicom import read_image
from radserve.errors import SpecError
from radserve.preprocess import image_to_wire, placement_of, to_wire_grid, waveform_to_wire
from radserve_export.datasets import Dataset
from radserve_export.synthetic import Split, brain_mri, breast_ultrasound, chest_xray, ct_hemorrhage, ecg_rhythm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from radserve_export.datasets import Progress
    from radserve_export.spec import Spec
    from radserve_export.synthetic import Sample

    Wire = NDArray[np.generic]
    _Chunk = tuple[list[Wire], list[str], list[NDArray[np.float32]]]
    _Generated = tuple[Wire, list[str], NDArray[np.float32] | None]

_CHUNK = 50
# Below this many samples, starting processes takes longer than they save.
_ALONE = 300
_MOST_WORKERS = 4

_IMAGES = {
    "chest_xray": chest_xray.make_sample,
    "ct_hemorrhage": ct_hemorrhage.make_sample,
    "brain_mri": brain_mri.make_sample,
    "breast_ultrasound": breast_ultrasound.make_sample,
}


def generate_dataset(spec: Spec, described: ImageInput | WaveformInput, progress: Progress) -> Dataset:
    """Generate what a spec's ``training`` block says.

    Args:
        spec: Says how much, from which seed, and the labels.
        described: Its input.
        progress: Told after every few samples.

    Raises:
        SpecError: The spec has no such block, names a generator of something
            else, or lacks a label that is generated.
    """
    if spec.training is None:
        msg = f"{spec.name}: give training data, or say in the spec's training section what to generate"
        raise SpecError(msg)
    plan = spec.training
    if (plan.generator in _IMAGES) != isinstance(described, ImageInput):
        msg = f"{spec.name}: training.generator {plan.generator} does not make what input describes"
        raise SpecError(msg)
    wire, found, lesions = _generated(
        plan.generator, plan.samples, described, seed=plan.seed, split=Split.TRAIN, progress=progress
    )
    places = {label.name: place for place, label in enumerate(spec.labels)}
    if missing := sorted(set(found) - set(places)):
        msg = f"{spec.name}: the generated data also show {', '.join(missing)}: add to labels"
        raise SpecError(msg)
    y = np.array([places[name] for name in found], np.int64)
    return Dataset(x=wire, y=y, places=lesions)


def wire_samples(
    generator: str,
    count: int,
    described: ImageInput | WaveformInput,
    *,
    seed: int,
    split: Split,
    progress: Progress,
) -> tuple[Wire, list[str]]:
    """Generate images, or ECGs, and bring them to the wire with the SDK's preprocessing.

    Args:
        generator: Which images; for a waveform input there is one generator.
        count: How many.
        described: The model's input.
        seed: Of the generator.
        split: Of the generator.
        progress: Told after every few samples.

    Returns:
        Wire arrays ``(count, *wire shape)`` and the label of each.
    """
    wire, labels, _ = _generated(generator, count, described, seed=seed, split=split, progress=progress)
    return wire, labels


def _generated(
    generator: str,
    count: int,
    described: ImageInput | WaveformInput,
    *,
    seed: int,
    split: Split,
    progress: Progress,
) -> _Generated:
    """As wire_samples; and where images show their label, see Dataset."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    if count < _ALONE:
        return _collect(
            map(_chunk, repeat(generator), chunks, repeat(described), repeat(seed), repeat(split)), count, progress
        )
    executor = ProcessPoolExecutor(
        min(_MOST_WORKERS, os.cpu_count() or 1),
        # A forked child would inherit TensorFlow's and BLAS's locks, but not the threads that hold them.
        mp_context=get_context("spawn"),
        # Ctrl-C is the parent's business: it cancels what is left.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        parts = executor.map(_chunk, repeat(generator), chunks, repeat(described), repeat(seed), repeat(split))
        return _collect(parts, count, progress)
    finally:
        executor.shutdown(cancel_futures=True)


def _chunk(generator: str, indices: range, described: ImageInput | WaveformInput, seed: int, split: Split) -> _Chunk:
    wire: list[Wire] = []
    labels = []
    places: list[NDArray[np.float32]] = []
    for index in indices:
        if isinstance(described, ImageInput):
            sample = _IMAGES[generator](index, seed=seed, split=split)
            image = read_image(sample.source)
            wire.append(image_to_wire(image, described))
            labels.append(sample.label)
            places.append(_place(sample, described, image.pixel_aspect))
        else:
            # No DICOM file is written on the way: it holds the same samples (tested), and takes three times as long.
            recording = ecg_rhythm.record(index, seed=seed, split=split)
            wire.append(waveform_to_wire(recording.to_waveform(), described))
            labels.append(recording.label)
    return wire, labels, places


def _place(sample: Sample, described: ImageInput, pixel_aspect: float | None) -> NDArray[np.float32]:
    if sample.truth is None:
        return np.zeros((described.rows, described.columns), np.float32)
    rows, columns = sample.truth.shape
    placement = placement_of((rows, columns), described, pixel_aspect)
    return to_wire_grid((sample.truth > 0).astype(np.float32), placement)


def _collect(parts: Iterable[_Chunk], count: int, progress: Progress) -> _Generated:
    wire: list[Wire] = []
    labels: list[str] = []
    places: list[NDArray[np.float32]] = []
    for arrays, names, shown in parts:
        wire += arrays
        labels += names
        places += shown
        progress("generating data", len(labels), count)
    return np.stack(wire), labels, np.stack(places) if places else None
