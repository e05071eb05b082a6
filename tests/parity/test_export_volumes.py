"""Keras networks of volumes: exported, served by a real Triton, answered from slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from support.exports import label
from support.keras_models import keras, layers, vary
from support.series import stack

from radserve import Classification, Client, Segmentation, _codec
from radserve.preprocess import to_source_grid
from radserve_export import pipeline
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.full  # both exports take half a minute

GRID = (8, 16, 12)
INPUT = {
    "kind": "image", "modalities": ["CT"], "absent_attributes": "accept", "rows": GRID[1], "columns": GRID[2],
    "window": {"kind": "fixed", "center": 500, "width": 1000}, "study": {"mode": "volume", "slices": GRID[0]},
}  # fmt: skip


def unet() -> keras.Model:
    """Three classes of every voxel: down once and up again, with a skip."""
    given = layers.Input((*GRID, 1))
    fine = layers.Conv3D(4, 3, padding="same", activation="relu")(given)
    coarse = layers.Conv3D(8, 3, padding="same", activation="relu")(layers.MaxPooling3D(2)(fine))
    up = layers.Conv3DTranspose(4, 2, strides=2, activation="relu")(coarse)
    return vary(keras.Model(given, layers.Conv3D(3, 1)(layers.Concatenate()([fine, up]))), scale=0.4)


def classifier() -> keras.Model:
    """Three classes of a volume."""
    return vary(
        keras.Sequential(
            [
                layers.Input((*GRID, 1)),
                layers.Conv3D(4, 3, activation="relu"),
                layers.AveragePooling3D(2),
                layers.Conv3D(4, 3, activation="relu"),
                layers.GlobalAveragePooling3D(),
                layers.Dense(3, activation="softmax"),
            ]
        ),
        scale=0.8,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, dict[str, keras.Model]]]:
    folder: Path = tmp_path_factory.mktemp("volumes")
    models = {"unet": unet(), "classifier": classifier()}
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
        spec: dict[str, Any] = {
            "name": name,
            "task": "image_segmentation" if name == "unet" else "image_classification",
            "model": f"{name}.keras",
            "input": INPUT,
            "network_input": {"scale": 1 / 255},
            "exclusive": True,
            "labels": [label(one) for one in ("a", "b", "c")[: 2 if name == "unet" else 3]],
        }
        if name == "unet":
            spec["network_output"] = "logits"
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
        pipeline.export(folder / f"{name}.yaml", folder / "models")
    with EmbeddedServer(folder / "models") as server, Client(server.grpc_url) as client:
        yield client, models


@pytest.fixture
def slices() -> list[Any]:
    return stack(np.random.default_rng(1).integers(0, 1000, (11, 20, 30)))


def test_a_classifier_of_volumes_answers_as_keras_does(
    served: tuple[Client, dict[str, keras.Model]], slices: list[Any]
) -> None:
    client, models = served
    model = client.model("classifier", Classification)
    wire = model.prepare(slices)["PIXELS"]
    assert wire.shape == (1, *GRID, 1)
    (expected,) = np.asarray(models["classifier"](wire.astype(np.float32) / 255))
    found = {finding.label: finding.probability for finding in model.predict(slices).findings}
    np.testing.assert_allclose([found[name] for name in "abc"], expected, atol=1e-5)


def test_a_segmentation_of_volumes_answers_as_keras_does(
    served: tuple[Client, dict[str, keras.Model]], slices: list[Any]
) -> None:
    client, models = served
    model = client.model("unet", Segmentation)
    prepared = model.prepare(slices)["PIXELS"]
    (logits,) = np.asarray(models["unet"](prepared.astype(np.float32) / 255))
    result = model.predict(slices)
    assert result.label_map.shape == (11, 20, 30)
    assert len(np.unique(result.label_map)) > 1
    placement = _codec.prepare(model.contract, slices).placement
    assert placement is not None
    np.testing.assert_array_equal(result.label_map, to_source_grid(logits.argmax(axis=-1).astype(np.uint8), placement))
