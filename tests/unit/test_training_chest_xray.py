"""Training of the chest network, and the trained model that is committed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from radserve.contracts import ImageInput
from radserve.errors import SpecError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training import Dataset, _generated
from radserve_export.from_keras.training.chest_xray import build_network, train
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.spec import Spec, load_spec
from radserve_export.spec_data import Generated
from radserve_export.synthetic import Split

EXPORT = Path(__file__).parents[2] / "export"
SPEC = load_spec(EXPORT / "specs" / "chest_xray.yaml")


def silent(description: str, done: int, total: int) -> None:
    """Show nothing."""


def wire(count: int, *, seed: int, split: Split) -> Dataset:
    assert isinstance(SPEC.input, ImageInput)
    images, found = _generated.wire_samples("chest_xray", count, SPEC.input, seed=seed, split=split, progress=silent)
    names = [label.name for label in SPEC.labels]
    return Dataset(x=images, y=np.array([names.index(name) for name in found]))


def two_class_data(count: int, *, seed: int, split: Split) -> Dataset:
    """Normal hearts and large ones."""
    data = wire(count, seed=seed, split=split)
    chosen = np.isin(data.y, (0, 5))
    return Dataset(x=data.x[chosen], y=(data.y[chosen] == 5).astype(np.int64))


def accuracy(model: keras.Model, spec: Spec, data: Dataset) -> float:
    probabilities = model.predict(preprocess_reference(data.x, spec.network_input), verbose=0)
    return float((probabilities.argmax(axis=1) == data.y).mean())


def test_committed_model_recognises_fresh_phantoms() -> None:
    model = keras.models.load_model(EXPORT / "trained" / "chest_xray.keras", safe_mode=True)
    assert accuracy(model, SPEC, wire(300, seed=4711, split=Split.TEST)) >= 0.95


def test_committed_model_is_the_plain_architecture_without_optimizer() -> None:
    path = EXPORT / "trained" / "chest_xray.keras"
    model = keras.models.load_model(path, safe_mode=True)
    wanted = build_network((28, 28, 1), 6)
    assert [layer.get_config() for layer in model.layers] == [layer.get_config() for layer in wanted.layers]
    assert path.stat().st_size < 1.2 * 4 * wanted.count_params()


def test_a_users_own_two_classes_are_learnt_and_the_steps_reported() -> None:
    spec = msgspec.structs.replace(SPEC, labels=(SPEC.labels[0], SPEC.labels[5]))
    steps = []
    model = train(
        spec,
        two_class_data(300, seed=1, split=Split.TRAIN),
        lambda _description, done, total: steps.append((done, total)),
    )
    assert accuracy(model, spec, two_class_data(120, seed=1, split=Split.TEST)) >= 0.9
    assert steps == [(n, len(steps)) for n in range(1, len(steps) + 1)]
    assert not model.compiled


def test_the_spec_alone_is_enough() -> None:
    spec = msgspec.structs.replace(SPEC, training=Generated(generator="chest_xray", samples=12, seed=1))
    steps = []
    model = train(spec, None, lambda description, _done, _total: steps.append(description))
    assert model.output_shape == (None, 6)
    assert steps[0] != steps[-1]


def test_generation_in_processes_gives_what_generation_alone_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = wire(60, seed=2, split=Split.TRAIN)
    monkeypatch.setattr(_generated, "_ALONE", 0)
    together = wire(60, seed=2, split=Split.TRAIN)
    np.testing.assert_array_equal(alone.x, together.x)
    np.testing.assert_array_equal(alone.y, together.y)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"input": None}, "image input"),
        ({"exclusive": False}, "exclusive"),
        ({"labels": SPEC.labels[:1]}, "two labels"),
        ({"training": None}, "training section"),
        ({"labels": SPEC.labels[:5], "training": Generated(generator="chest_xray", samples=6, seed=1)}, "cardiomegaly"),
    ],
)
def test_a_spec_that_cannot_be_trained_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        train(msgspec.structs.replace(SPEC, **change), None, silent)
