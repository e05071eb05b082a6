"""A U-Net in every format that a model comes in, from the command to the published label map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import typer
from support.exports import write_spec
from support.keras_models import keras, layers
from support.outlines import COLUMNS, ROWS
from support.segmenters import segmentation_spec
from support.weights import randomise
from typer.testing import CliRunner

from radserve.contracts import LABEL_MAP, PIXELS
from radserve_export import commands
from radserve_export.check import check_repository
from radserve_export.graphs.checked import Chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

app = typer.Typer()
app.command()(commands.export)


def _unet() -> keras.Model:
    scan = layers.Input((ROWS, COLUMNS, 1))
    fine = layers.Conv2D(4, 3, padding="same", activation="relu")(scan)
    coarse = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D(2)(fine))
    up = layers.Conv2DTranspose(4, 2, strides=2)(coarse)
    return randomise(keras.Model(scan, layers.Conv2D(3, 1)(layers.Concatenate()([up, fine]))))


@pytest.mark.parametrize(
    ("name", "save", "options"),
    [
        ("unet.h5", lambda model, path: model.save(path), ["--trust"]),
        ("unet", lambda model, path: model.export(path, verbose=False), []),
    ],
    ids=["HDF5", "SavedModel"],
)
def test_a_segmentation_is_exported_from_every_format(
    tmp_path: Path, name: str, save: Callable[[keras.Model, Path], Any], options: list[str]
) -> None:
    model = _unet()
    save(model, tmp_path / name)
    spec = write_spec(tmp_path, segmentation_spec(model=name))
    done = CliRunner().invoke(app, [str(spec), "--repository", str(tmp_path / "models"), *options])
    assert (done.exit_code, done.stderr) == (0, "")
    assert check_repository(tmp_path / "models") == []
    wire = np.random.default_rng(0).integers(0, 256, (5, ROWS, COLUMNS, 1)).astype(np.uint8)
    found = Chain([onnx.load(tmp_path / "models/outlines_pipeline/1/model.onnx")])({PIXELS: wire})[LABEL_MAP]
    wanted = np.asarray(model(wire.astype(np.float32) / 255)).argmax(axis=-1)
    assert len(np.unique(wanted)) == 3, "all labels must occur for the comparison to mean something"
    np.testing.assert_array_equal(found, wanted)
