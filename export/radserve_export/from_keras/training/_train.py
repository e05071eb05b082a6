"""From a spec to a trained ``.keras`` file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from radserve.errors import SpecError
from radserve_export.datasets import load_dataset
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.spec import load_spec
from radserve_export.synthetic import GENERATORS

if TYPE_CHECKING:
    import keras

    from radserve_export.datasets import Dataset, Progress
    from radserve_export.spec import Spec

# One of so many of each label's samples is held out where the data set itself keeps none apart.
_HELD_OUT = 5
# Which module trains on a generator's data, where it has not the generator's name.
_NETWORKS = dict.fromkeys(("ct_hemorrhage", "brain_mri", "breast_ultrasound"), "pooled_images")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left behind.

    Attributes:
        path: The model file.
        size_bytes: Its size.
        duration_s: Seconds from spec to file.
        accuracy: On samples of the user's own data that were not trained on; None
            where there are none.
        measured: How many these were.
    """

    path: Path
    size_bytes: int
    duration_s: float
    accuracy: float | None
    measured: int


def train_model(
    spec_path: Path,
    output: Path | None,
    data: Path | None,
    labels: Path | None,
    progress: Progress,
    *,
    force: bool = False,
) -> Trained:
    """Train the reference network that a spec names.

    Args:
        spec_path: The spec; its ``training`` block names the generator, and with
            it the network's architecture.
        output: Where to write; None is the spec's ``model``.
        data: A user's own data (see ``load_dataset``); None generates it.
        labels: CSV of labels for a folder.
        progress: Told how far the work is.
        force: Overwrite what is there.

    Raises:
        SpecError: The spec names no reference network, the data does not fit, or
            there is a model already where this one is to be written.
    """
    began = perf_counter()
    spec = load_spec(spec_path)
    generator = spec.training.generator if spec.training else None
    if generator not in GENERATORS:
        msg = (
            f"{spec_path}: training.generator also names the network's architecture: give a block"
            f" 'training: {{generator: NAME, samples: N, seed: N}}' with one of {', '.join(GENERATORS)}"
        )
        raise SpecError(msg)
    path = output or spec_path.parent / spec.model
    tokenizer = path.parent / Path(spec.tokenizer).name if spec.tokenizer is not None else None
    for written in (path, tokenizer):
        if written is not None and written.exists() and not force:
            msg = f"{written} is there already: name another file with --output, or overwrite it with --force"
            raise SpecError(msg)
    dataset, kept_apart = _own_data(spec, data, labels, progress) if data is not None else (None, None)
    network = import_module(f"radserve_export.from_keras.training.{_NETWORKS.get(generator, generator)}")
    model = network.train(spec, dataset, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        network.build_tokenizer(spec).save(str(tokenizer))
    partial = path.with_name(f".{path.stem}.partial.keras")
    try:
        model.save(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Trained(
        path=path,
        size_bytes=path.stat().st_size,
        duration_s=perf_counter() - began,
        accuracy=_accuracy(model, spec, kept_apart) if kept_apart is not None else None,
        measured=0 if kept_apart is None else len(kept_apart.y),
    )


def _own_data(spec: Spec, data: Path, labels: Path | None, progress: Progress) -> tuple[Dataset, Dataset | None]:
    """What to train on, and what to measure on."""
    dataset, kept_apart = load_dataset(spec, data, labels, progress)
    if kept_apart is not None:
        return dataset, kept_apart
    rng = np.random.default_rng(0)
    of_labels = [rng.permutation(np.flatnonzero(dataset.y == label)) for label in np.unique(dataset.y)]
    chosen = np.concatenate([places[_HELD_OUT - 1 :: _HELD_OUT] for places in of_labels])
    if not len(chosen):
        return dataset, None
    rest = np.setdiff1d(np.arange(len(dataset.y)), chosen)
    train, test = (replace(dataset, x=dataset.x[rows], y=dataset.y[rows]) for rows in (rest, chosen))
    return train, test


def _accuracy(model: keras.Model, spec: Spec, data: Dataset) -> float:
    answers = model.predict(preprocess_reference(data.x, spec.network_input), verbose=0).argmax(axis=-1)
    return float((answers == data.y).mean())
