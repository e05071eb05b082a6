"""Training of the head, brain and breast classifiers, and the trained models that are committed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from radserve.contracts import ImageInput
from radserve.errors import SpecError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training import train_model
from radserve_export.from_keras.training._generated import wire_samples
from radserve_export.from_keras.training.pooled_images import build_network, train
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.spec import Spec, load_spec
from radserve_export.spec_data import Generated
from radserve_export.synthetic import Split, labels

EXPORT = Path(__file__).parents[2] / "export"
NAMES = ("ct_hemorrhage", "brain_mri", "breast_ultrasound")
LARGEST_FILE = 1_500_000


def spec_of(name: str) -> Spec:
    return load_spec(EXPORT / "specs" / f"{name}.yaml")


def committed(name: str) -> keras.Model:
    return keras.models.load_model(EXPORT / "trained" / f"{name}.keras", safe_mode=True)


def silent(description: str, done: int, total: int) -> None:
    """Show nothing."""


@pytest.mark.parametrize("name", NAMES)
def test_committed_model_recognises_fresh_phantoms(name: str) -> None:
    spec = spec_of(name)
    assert isinstance(spec.input, ImageInput)
    images, found = wire_samples(name, 200, spec.input, seed=4711, split=Split.TEST, progress=silent)
    answers = committed(name).predict(preprocess_reference(images, spec.network_input), verbose=0).argmax(axis=1)
    assert np.mean([labels(name)[answer] == label for answer, label in zip(answers, found, strict=True)]) >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_committed_model_is_the_plain_architecture_without_optimizer(name: str) -> None:
    spec, model = spec_of(name), committed(name)
    assert isinstance(spec.input, ImageInput)
    wanted = build_network((spec.input.rows, spec.input.columns, spec.input.channels), len(spec.labels), name)
    assert [layer.get_config() for layer in model.layers] == [layer.get_config() for layer in wanted.layers]
    assert not getattr(model, "optimizer", None)
    size = (EXPORT / "trained" / f"{name}.keras").stat().st_size
    assert size < min(LARGEST_FILE, 2 * 4 * wanted.count_params())


@pytest.mark.parametrize("name", NAMES)
def test_the_last_convolution_keeps_places_apart(name: str) -> None:
    convolutions = [layer for layer in committed(name).layers if isinstance(layer, keras.layers.Conv2D)]
    _, rows, columns, _ = convolutions[-1].output.shape
    assert min(rows, columns) >= 8


def test_the_spec_alone_is_enough(tmp_path: Path) -> None:
    text = (EXPORT / "specs" / "ct_hemorrhage.yaml").read_text(encoding="utf-8")
    path = tmp_path / "small.yaml"
    path.write_text(text.replace("samples: 4000", "samples: 12").replace("rows: 64", "rows: 32"), encoding="utf-8")
    steps = []
    trained = train_model(path, tmp_path / "small.keras", None, None, lambda told, _done, _total: steps.append(told))
    model = keras.models.load_model(trained.path, safe_mode=True)
    assert model.input_shape == (None, 32, 64, 1)
    assert model.output_shape == (None, 4)
    assert steps[0] != steps[-1] == "Training ct_hemorrhage"


def test_a_generator_of_something_else_is_refused_by_name() -> None:
    spec = msgspec.structs.replace(spec_of("brain_mri"), training=Generated(generator="ecg_rhythm", samples=6, seed=1))
    with pytest.raises(SpecError, match="ecg_rhythm"):
        train(spec, None, silent)
