"""The command ``radserve export`` with the process that reads a model, which only it sees into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer
from support.exports import write_spec
from support.keras_models import keras, layers
from typer.testing import CliRunner

from radserve_export import commands

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer()
app.command()(commands.export)


@pytest.mark.usefixtures("no_child_left")
def test_the_user_is_told_of_a_layer_that_becomes_a_loop(tmp_path: Path) -> None:
    taken = keras.Input((3, 2), name="signal")
    inner = keras.Sequential([layers.Input((3, 2)), layers.LSTM(2, activation="gelu", name="odd")], name="inner")
    keras.Model(taken, inner(taken)).save(tmp_path / "m.keras")
    spec = write_spec(tmp_path, {"name": "m", "task": "tensors", "model": "m.keras"})
    result = CliRunner().invoke(app, [str(spec), "--repository", str(tmp_path / "models")])
    assert result.stdout.startswith("m: published as version 1")
    told = "layer inner/odd has no native ONNX operator (its activation gelu): it becomes a slower loop"
    assert result.stderr == f"radserve: m.keras: {told}\n"
    assert result.exit_code == 0
