"""Keras' applications: equal to Keras on random images, no axes turned between convolutions.

What is counted: every Transpose of the served graph, and every Reshape that
could stand for one (four axes in, four axes out). One Transpose is allowed: the
image's channels, last in Keras, come first for ONNX' convolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import typer
from support.applications import APPLICATIONS, BOUND, application, images
from support.exports import write_spec
from typer.testing import CliRunner

from radserve.contracts.manifest import read_manifest
from radserve_export import commands
from radserve_export.from_keras.convert import convert
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain

if TYPE_CHECKING:
    from pathlib import Path

_QUICK = ("MobileNetV3Small",)
_CASES = [name if name in _QUICK else pytest.param(name, marks=pytest.mark.full) for name in APPLICATIONS]

app = typer.Typer()
for command in (commands.export, commands.check):
    app.command()(command)


def _turns(model: onnx.ModelProto) -> list[str]:
    """Every Transpose, and every Reshape from four axes to four."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    rank = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.input, *graph.value_info, *graph.output)}
    return [
        node.op_type
        for node in graph.node
        if node.op_type == "Transpose"
        or (node.op_type == "Reshape" and rank[node.input[0]] == rank[node.output[0]] == 4)
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", _CASES)
def test_an_application_is_equal_to_keras_and_turns_its_axes_once(name: str) -> None:
    model = application(name, images(name, 16, seed=1), classes=10)
    network = convert(model, source_sha256="0" * 64)
    pixels = images(name, 3)
    got = Chain([network.graph])({NETWORK_INPUT: pixels})[NETWORK_OUTPUT]
    want = np.asarray(model(pixels, training=False))
    largest = np.abs(want).max()
    difference = np.abs(got - want).max() / largest
    assert np.ptp(want, axis=0).max() > 0.01 * largest, "images must differ for the comparison to mean something"
    assert difference <= BOUND
    assert _turns(network.graph) == ["Transpose"]


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_is_exported_by_four_lines_and_nothing_is_wrong_with_it(tmp_path: Path, name: str) -> None:
    model = application(name, images(name, 16, seed=1), classes=10)
    model.save(tmp_path / "someones.keras")
    bound = BOUND * float(np.abs(model(images(name, 3), training=False)).max())
    parity = {"input_range": [0, APPLICATIONS[name][1]], "atol": bound, "rtol": 0}
    path = write_spec(tmp_path, {"name": "net", "task": "tensors", "model": "someones.keras", "parity": parity})
    models = tmp_path / "models"
    done = CliRunner().invoke(app, ["export", str(path), "--repository", str(models)])
    assert done.exit_code == 0, done.output
    checked = CliRunner().invoke(app, ["check", str(models)])
    assert (checked.exit_code, checked.output) == (0, f"{models}: nothing wrong\n")
    manifest = read_manifest(models / "net/1/manifest.json")
    assert manifest.parity["batch_sizes"] == [1, 2, 7, 64]
    for output in manifest.parity["outputs"].values():
        assert 0 < output["max_abs"] <= bound, "two programs that compute the same round differently"
