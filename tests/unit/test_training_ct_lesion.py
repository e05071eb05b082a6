"""Training of the U-Net, and the trained model that is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from radserve.contracts import Aspect, ImageInput, Task
from radserve.errors import SpecError
from radserve.preprocess import place
from radserve_export.datasets import Dataset
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training import ct_lesion
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.spec import load_spec
from radserve_export.spec_data import Generated
from radserve_export.synthetic import Split

EXPORT = Path(__file__).parents[2] / "export"
SPEC = load_spec(EXPORT / "specs" / "ct_lesion.yaml")
assert isinstance(SPEC.input, ImageInput)
INPUT = SPEC.input
COMMITTED = EXPORT / "trained" / "ct_lesion.keras"


def silent(description: str, done: int, total: int) -> None:
    """Show nothing."""


def test_the_committed_model_is_the_plain_architecture_without_optimizer() -> None:
    model = keras.models.load_model(COMMITTED, safe_mode=True)
    wanted = ct_lesion.build_network((88, 112, 1), 3)
    assert [layer.get_config() for layer in model.layers] == [layer.get_config() for layer in wanted.layers]
    assert COMMITTED.stat().st_size < 1_500_000


def test_the_committed_model_outlines_fresh_phantoms() -> None:
    images, maps = ct_lesion.wire_samples(30, INPUT, seed=4711, split=Split.TEST, progress=silent)
    model = keras.models.load_model(COMMITTED, safe_mode=True)
    answers = model.predict(preprocess_reference(images, SPEC.network_input), verbose=0).argmax(axis=-1)
    for value in (1, 2):
        one, two = answers == value, maps == value
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) >= 0.9


def test_training_lowers_the_loss_and_reports_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct_lesion, "_EPOCHS", 3)
    small = msgspec.structs.replace(INPUT, rows=32, columns=40)
    plan = Generated(generator="ct_lesion", samples=48, seed=1)
    told: list[tuple[str, int, int]] = []
    spec = msgspec.structs.replace(SPEC, input=small, training=plan)
    model = ct_lesion.train(spec, None, lambda *step: told.append(step))
    images, maps = ct_lesion.wire_samples(48, small, seed=1, split=Split.TRAIN, progress=silent)

    def loss(network: keras.Model) -> float:
        p = network(preprocess_reference(images, spec.network_input), training=False)
        return float(ct_lesion._dice_and_cross_entropy(maps, p))

    keras.utils.set_random_seed(1)
    assert loss(model) < 0.8 * loss(ct_lesion.build_network((32, 40, 1), 3))
    assert told[-1] == ("Training ct_lesion", 3, 3)
    assert ("generating data", 48, 48) in told
    assert not hasattr(model, "optimizer")


def test_the_loss_is_0_for_the_truth_and_high_for_the_wrong_label() -> None:
    truth = np.array([[[0, 1], [2, 1]]], np.uint8)
    right = np.eye(3, dtype=np.float32)[truth]
    assert float(ct_lesion._dice_and_cross_entropy(truth, right)) == pytest.approx(0, abs=1e-5)
    assert float(ct_lesion._dice_and_cross_entropy(truth, right[..., [0, 2, 1]])) > 1


def test_each_wire_pixel_gets_the_label_that_most_of_it_has() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 1, 2, 2]], np.uint8).repeat(4, 0).repeat(4, 1)
    wire = ct_lesion._to_wire(truth, place((8, 16), (2, 4), Aspect.STRETCH))
    assert wire.tolist() == [[0, 0, 1, 1], [0, 1, 2, 2]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": Task.IMAGE_CLASSIFICATION}, "needs task image_segmentation"),
        ({"training": None}, "a training block"),
        ({"input": msgspec.structs.replace(INPUT, rows=90)}, "multiples of 8"),
    ],
)
def test_a_spec_of_another_kind_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        ct_lesion.train(msgspec.structs.replace(SPEC, **changes), None, silent)


def test_data_without_label_maps_is_refused() -> None:
    data = Dataset(x=np.zeros((1, 88, 112, 1), np.uint8), y=np.zeros(1, np.int64))
    with pytest.raises(SpecError, match="leave --data out"):
        ct_lesion.train(SPEC, data, silent)
