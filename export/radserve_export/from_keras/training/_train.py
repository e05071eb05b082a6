"""From a spec to a trained ``.keras`` file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from radserve.errors import SpecError
from radserve_export.from_keras.training._data import load_dataset
from radserve_export.spec import load_spec
from radserve_export.synthetic import GENERATORS

if TYPE_CHECKING:
    from radserve_export.from_keras.training._data import Progress


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left behind.

    Attributes:
        path: The model file.
        size_bytes: Its size.
        duration_s: Seconds from spec to file.
    """

    path: Path
    size_bytes: int
    duration_s: float


def train_model(
    spec_path: Path, output: Path | None, data: Path | None, labels: Path | None, progress: Progress
) -> Trained:
    """Train the reference network that a spec names.

    Args:
        spec_path: The spec; its ``training`` block names the generator, and with
            it the network's architecture.
        output: Where to write; None is the spec's ``model``.
        data: A user's own data (see ``load_dataset``); None generates it.
        labels: CSV of labels for a folder.
        progress: Told how far the work is.

    Raises:
        SpecError: The spec names no reference network, or the data does not fit.
    """
    began = perf_counter()
    spec = load_spec(spec_path)
    generator = spec.training.generator if spec.training else None
    if generator not in GENERATORS:
        msg = f"{spec_path}: training.generator must be one of {', '.join(GENERATORS)}"
        raise SpecError(msg)
    dataset = load_dataset(spec, data, labels, progress) if data is not None else None
    network = import_module(f"radserve_export.from_keras.training.{generator}")
    model = network.train(spec, dataset, progress)
    path = output or spec_path.parent / spec.model
    path.parent.mkdir(parents=True, exist_ok=True)
    if spec.tokenizer is not None:
        network.build_tokenizer(spec).save(str(path.parent / Path(spec.tokenizer).name))
    partial = path.with_name(f".{path.stem}.partial.keras")
    try:
        model.save(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Trained(path=path, size_bytes=path.stat().st_size, duration_s=perf_counter() - began)
