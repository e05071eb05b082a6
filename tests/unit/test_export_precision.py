"""Networks in lower precision: what is refused, what passes the gate, and what does not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto
from support.exports import (
    COLUMNS,
    ROWS,
    dense_network,
    export_network,
    image_spec,
    text_spec,
    token_network,
    write_spec,
)
from support.networks import convolutional_network, overflowing_network, recurrent_network
from typer.testing import CliRunner

from radserve.contracts import PROBABILITIES
from radserve.contracts.manifest import read_manifest
from radserve.errors import ConversionError, ParityError, SpecError
from radserve_export import commands
from radserve_export.calibrate import expected_calibration_error
from radserve_export.check import check_repository
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.low_precision import _same
from radserve_export.spec import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export.network import Network

    Export = Callable[..., dict[str, Any]]

LOOSE = {"atol": 0.05, "minimum_agreement": 0.9}
CPU = {"kind": "cpu"}


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Export a network with a serving block; returns what the manifest says of its precision."""

    def run(network: Network, described: dict[str, Any] | None = None, **serving: Any) -> dict[str, Any]:
        done = export_network(tmp_path, network, (described or image_spec()) | {"serving": serving})
        assert check_repository(tmp_path / "models") == []
        path = tmp_path / f"models/{done.name}/{done.version}/manifest.json"
        return dict(read_manifest(path).parity.get("low_precision", {}))

    return run


def _operators(tmp_path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(tmp_path / "models/tiny_pipeline/1/model.onnx").graph.node}


def _types(tmp_path: Path) -> set[int]:
    return {one.data_type for one in onnx.load(tmp_path / "models/tiny_pipeline/1/model.onnx").graph.initializer}


def test_half_floats_are_in_the_graph_and_its_ends_keep_their_types(tmp_path: Path, export: Export) -> None:
    measured = export(dense_network(), precision="fp16", low_precision=LOOSE)
    assert measured["agreement"] >= 0.9
    outputs = read_manifest(tmp_path / "models/tiny/1/manifest.json").parity["outputs"].values()
    assert {output["argmax_agreement"] for output in outputs} == {None}, "within a wide tolerance all labels agree"
    assert (measured["precision"], measured["quantization"]) == ("fp16", "none")
    assert TensorProto.FLOAT16 in _types(tmp_path)
    (output, _) = onnx.load(tmp_path / "models/tiny_pipeline/1/model.onnx").graph.output
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT


def test_static_quantization_makes_a_convolutional_network_integers(tmp_path: Path, export: Export) -> None:
    measured = export(convolutional_network(), quantization="static", low_precision=LOOSE)
    assert measured["agreement"] >= 0.9
    assert {"QuantizeLinear", "DequantizeLinear"} <= _operators(tmp_path)
    assert TensorProto.INT8 in _types(tmp_path)


def test_dynamic_quantization_makes_a_recurrent_network_integers(tmp_path: Path, export: Export) -> None:
    export(recurrent_network(), quantization="dynamic", instances=CPU, low_precision=LOOSE)
    assert "DynamicQuantizeLSTM" in _operators(tmp_path)
    assert TensorProto.INT8 in _types(tmp_path)


def test_the_same_network_is_quantised_to_the_same_bytes(tmp_path: Path, export: Export) -> None:
    serving = {"quantization": "static", "low_precision": LOOSE}
    export(convolutional_network(), **serving)
    before = (tmp_path / "models/tiny/config.pbtxt").read_bytes()
    export(convolutional_network(), **serving)
    assert (tmp_path / "models/tiny/config.pbtxt").read_bytes() == before


def test_bare_tensors_are_quantised_on_random_inputs(export: Export) -> None:
    raw = {"name": "raw", "task": "tensors", "model": "m.keras", "parity": {"input_range": [0, 1]}}
    measured = export(convolutional_network(), raw, quantization="static", low_precision=LOOSE)
    assert measured["real"] is False
    assert measured["inputs"] >= 74


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        ({"atol": 1e-6, "minimum_agreement": 0.5}, "does not answer as its Keras model does"),
        ({"atol": 1.0, "minimum_agreement": 1.0}, "of 74 inputs get the label that Keras gives, below"),
    ],
)
def test_a_quantised_network_that_fails_its_gate_is_not_published(
    tmp_path: Path, export: Export, tolerance: dict[str, float], message: str
) -> None:
    network = convolutional_network()
    if tolerance["atol"] == 1.0:  # far enough apart, and still within that tolerance
        network = replace(network, reference=dense_network(seed=1).reference)
    with pytest.raises(ParityError, match=message) as caught:
        export(network, quantization="static", low_precision=tolerance)
    assert caught.value.report
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("network", "serving", "message"),
    [
        (
            recurrent_network,
            {"quantization": "static", "low_precision": LOOSE},
            r"static is not for recurrent layers \(LSTM\)",
        ),
        (recurrent_network, {"accelerator": "tensorrt"}, r"TensorRT is not for recurrent layers \(LSTM\): use cuda"),
    ],
)
def test_what_is_not_for_recurrent_networks_is_refused(
    tmp_path: Path, export: Export, network: Callable[[], Network], serving: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        export(network(), **serving)
    assert not (tmp_path / "models").exists()


def test_tensorrt_can_be_forced_on_a_recurrent_network(tmp_path: Path, export: Export) -> None:
    assert export(recurrent_network(), accelerator="tensorrt", tensorrt={"force": True}) == {}
    assert "tensorrt" in (tmp_path / "models/tiny_pipeline/config.pbtxt").read_text()


def test_what_tensorrt_computes_in_half_floats_is_said_to_be_unmeasured(
    tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    use_network(dense_network())
    models, app = tmp_path / "models", typer.Typer()
    app.command()(commands.export)
    for precision, version in (("fp32", 1), ("fp16", 2), ("fp16", 2)):
        spec = write_spec(tmp_path, image_spec(serving={"accelerator": "tensorrt", "precision": precision}))
        said = CliRunner().invoke(app, [str(spec), "--repository", str(models)]).output
        told = read_manifest(models / f"tiny/{version}/manifest.json").parity.get("not_measured", "")
        is_measured = precision == "fp32"
        assert (told == "") == is_measured
        assert ("not measured: the fp16 that TensorRT computes on the serving GPU" in said) != is_measured
        assert told in said
        assert ("not measured: the fp16" in (models / "README.md").read_text()) != is_measured


@pytest.fixture
def held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Data whose labels were drawn by half the logits that the network in full precision gives."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (3000, ROWS, COLUMNS, 1)).astype(np.uint8)
    spec = load_spec(write_spec(tmp_path, image_spec()))
    network = overflowing_network()
    p = network.reference({NETWORK_INPUT: preprocess_reference(x, spec.network_input)})[NETWORK_OUTPUT]
    halved = np.sqrt(p) / np.sqrt(p).sum(axis=-1, keepdims=True)
    y = (halved.cumsum(axis=-1) < rng.random((len(x), 1))).sum(axis=-1)
    monkeypatch.setattr("radserve_export.calibrate.held_out", lambda *_: SimpleNamespace(x=x, y=y))
    return x, y


def test_the_temperature_is_that_of_the_network_that_is_served(
    tmp_path: Path, export: Export, held_out: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    found: dict[str, Any] = {}
    for precision in ("fp32", "fp16"):
        half = {"low_precision": {"atol": 1.0, "minimum_agreement": 0.9}} if precision == "fp16" else {}
        described = image_spec(name=precision, calibrate={"data": "held out"})
        export(overflowing_network(), described, precision=precision, **half)
        found[precision] = read_manifest(tmp_path / f"models/{precision}/1/manifest.json").calibration
    assert found["fp32"]["temperature"] == pytest.approx(2, rel=0.1)
    assert found["fp16"]["temperature"] == pytest.approx(2 / 4, rel=0.1)
    x, y = held_out
    measured = np.random.default_rng(20261122).permutation(len(y))[1::2]
    graph = Chain([onnx.load(tmp_path / "models/fp16_pipeline/1/model.onnx")])
    served = graph({"PIXELS": x[measured]})[PROBABILITIES].astype(np.float64)
    error = expected_calibration_error(served, y[measured, None] == np.arange(3), exclusive=True)
    assert found["fp16"]["ece_after"] == pytest.approx(error, abs=5e-3)
    assert found["fp16"]["ece_after"] < found["fp16"]["ece_before"] / 2


def test_a_network_with_nothing_to_quantise_is_told(export: Export) -> None:
    serving = {"quantization": "dynamic", "instances": CPU, "low_precision": LOOSE}
    with pytest.raises(ConversionError, match=r"has nothing to quantise: leave serving\.quantization out"):
        export(token_network(), text_spec(), **serving)


@pytest.mark.parametrize(("off", "agreement"), [(0.0, 1.0), (5.0, 0.0)])
def test_a_single_number_agrees_only_where_it_is_near(tmp_path: Path, off: float, agreement: float) -> None:
    spec = load_spec(write_spec(tmp_path, {"name": "one", "task": "tensors", "model": "one.keras"}))
    wanted = {"y": np.ones((4, 1), np.float32)}
    assert _same(["y"], {"y": wanted["y"] + off}, wanted, spec).mean() == agreement


def test_an_output_that_is_missing_is_no_agreement(tmp_path: Path) -> None:
    spec = load_spec(write_spec(tmp_path, {"name": "one", "task": "tensors", "model": "one.keras"}))
    with pytest.raises(KeyError):
        _same(["y"], {}, {"y": np.ones((4, 1), np.float32)}, spec)
