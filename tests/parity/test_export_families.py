"""The three architectures: converted, fused and unfused, the same bytes each time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from support.keras_models import FAMILIES, chest, ecg, keras, layers, report, vary, write_family

from radserve.contracts import wire_tensors
from radserve.errors import ConversionError, ParityError, SpecError, UntrustedModelError
from radserve_export import pipeline
from radserve_export.ensemble import build_steps
from radserve_export.from_keras.convert import convert
from radserve_export.from_keras.load import load_model
from radserve_export.graphs.checked import Chain, signature
from radserve_export.parity import random_input
from radserve_export.spec import load_spec
from radserve_export.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_export.network import Network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_the_chest_network_is_as_small_as_its_architecture() -> None:
    network = convert(chest(), source_sha256="0" * 64)
    assert _operators(network.graph) == [
        *("Reshape", "Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Transpose", "Reshape"),
        *("MatMul", "Add", "Relu", "MatMul", "Add", "Softmax"),
    ]


def test_the_ecg_network_has_one_native_lstm() -> None:
    network = convert(ecg(), source_sha256="0" * 64)
    assert _operators(network.graph)[:3] == ["Transpose", "LSTM", "Squeeze"]


def test_the_report_network_gives_its_lstm_sequence_lengths() -> None:
    network = convert(report(), source_sha256="0" * 64)
    (lstm,) = [node for node in network.graph.graph.node if node.op_type == "LSTM"]
    assert lstm.input[4]
    assert "Loop" not in _operators(network.graph)


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_and_unfused_answer_alike(folder: Path, family: str) -> None:
    made = []
    for fuse in (True, False):
        path = write_family(folder, family, fuse=fuse)
        spec = load_spec(path)
        assert spec.input is not None
        model, sha256 = load_model(folder / spec.model)
        network = convert(model, source_sha256=sha256)
        tokenizer = read_tokenizer(folder / spec.tokenizer) if spec.tokenizer else None
        wire, _ = wire_tensors(spec.task, spec.input, len(spec.labels))
        steps = [step for step in build_steps(spec, network, wire, tokenizer) if step.graph is not None]
        vocabulary = tokenizer.vocabulary if tokenizer else None
        (wanted,) = steps[0].inputs
        feed = random_input(wanted, 7, np.random.default_rng(0), vocabulary=vocabulary, limits=None)
        answers = Chain([step.graph for step in steps if step.graph is not None])({wanted.name: feed})
        made.append((answers["PROBABILITIES"], answers["DECISIONS"]))
    assert np.ptp(made[0][0], axis=0).max() > 0.01, "rows must differ for the comparison to mean something"
    np.testing.assert_allclose(made[0][0], made[1][0], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(made[0][1], made[1][1])


@pytest.mark.parametrize("family", ["report"])
def test_another_process_writes_the_same_bytes(folder: Path, family: str) -> None:
    path = write_family(folder, family)
    spec = load_spec(path)
    model, sha256 = load_model(folder / spec.model)
    convert(chest(), source_sha256="0" * 64)  # what came before must not show
    here = convert(model, source_sha256=sha256).graph.SerializeToString(deterministic=True)
    script = (
        "import hashlib, sys; from pathlib import Path\n"
        "from radserve_export.from_keras.convert import convert\n"
        "from radserve_export.from_keras.load import load_model\n"
        "model, sha256 = load_model(Path(sys.argv[1]))\n"
        "graph = convert(model, source_sha256=sha256).graph\n"
        "print(hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest())\n"
    )
    there = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", script, str(folder / spec.model)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert there.stderr == "", "TensorFlow is to start silently"
    assert there.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_a_deliberately_wrong_conversion_is_caught(folder: Path, use_network: Callable[[Network], None]) -> None:
    path = write_family(folder, "ecg")
    model, sha256 = load_model(folder / load_spec(path).model)
    network = convert(model, source_sha256=sha256)
    (weights,) = [i for i in network.graph.graph.initializer if i.name.endswith("LSTM/W")]
    i, o, f, c = np.split(onnx.numpy_helper.to_array(weights), 4, axis=1)
    # Keras' order of an LSTM's gates, where ONNX has another.
    weights.CopyFrom(onnx.numpy_helper.from_array(np.concatenate([i, f, c, o], axis=1), weights.name))
    use_network(network)
    with pytest.raises(ParityError, match=r"network: NETWORK_OUTPUT differs by .* on a random batch of \d+, row \d+"):
        pipeline.export(path, folder / "wrong")
    assert not (folder / "wrong").exists()


def _multiple() -> keras.Model:
    a = layers.Input((4,), name="a")
    b = layers.Input((None, 3), name="b")
    sequence, state = layers.GRU(5, return_sequences=True, return_state=True, name="gru")(layers.Masking()(b))
    return vary(keras.Model({"a": a, "b": b}, [layers.Dense(2, name="dense")(a), sequence, state]), scale=1.5)


def test_task_tensors_keeps_several_inputs_outputs_and_free_axes(tmp_path: Path) -> None:
    _multiple().save(tmp_path / "m.keras")
    (tmp_path / "spec.yaml").write_text("name: raw\ntask: tensors\nmodel: m.keras\n")
    pipeline.export(tmp_path / "spec.yaml", tmp_path / "models")
    inputs, outputs = signature(onnx.load(tmp_path / "models/raw_network/1/model.onnx"))
    assert {(tensor.name, tensor.dims) for tensor in inputs} == {("a", (4,)), ("b", (-1, 3))}
    assert [(tensor.name, tensor.dims) for tensor in outputs] == [
        ("dense", (2,)),
        ("gru", (-1, 5)),
        ("gru_1", (5,)),
    ]


def _fixed() -> keras.Model:
    built_in = layers.Input((4,), batch_size=2)
    return keras.Model(built_in, keras.ops.reshape(layers.Dense(2)(built_in), (2, 2)))


def _string() -> keras.Model:
    return keras.Sequential([layers.Input((1,), dtype="string"), layers.Hashing(3, name="bins")])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (_fixed, ConversionError, "has a batch of 2 built in"),
        (_multiple, SpecError, "2 inputs and 3 outputs: only task tensors"),
        (_string, ConversionError, "its text is read by bins (Hashing)"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(
    make: Callable[[], keras.Model], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        convert(make(), source_sha256="0" * 64)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unsupported_operator_is_named_with_its_layer() -> None:
    class Odd(layers.Layer):  # type: ignore[misc]  # Keras is untyped
        def call(self, x: Any) -> Any:
            return keras.ops.fft((x, x))[0]

    with pytest.raises(ConversionError, match=r"^layer peculiar cannot be exported: there is no ONNX operator for "):
        convert(keras.Sequential([layers.Input((8,)), Odd(name="peculiar")]), source_sha256="0" * 64)


def test_a_lambda_layer_is_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    where = str(trace)
    # Keras stores the function's code: it must import what it needs by itself.
    evil = layers.Lambda(lambda x: [__import__("pathlib").Path(where).mkdir(), x][1], name="evil")
    model = keras.Sequential([layers.Input((2,)), evil])
    model.save(tmp_path / "m.keras")
    trace.rmdir()
    with pytest.raises(UntrustedModelError, match=r"layer 'evil' \(Lambda\)"):
        load_model(tmp_path / "m.keras")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent.keras", SpecError, "cannot read the model"),
        ("model.pb", ConversionError, "is not a Keras model file"),
        ("folder.keras", ConversionError, "is not a Keras model file"),
        ("model.h5", UntrustedModelError, "an HDF5 model can run code"),
        ("text.keras", ConversionError, "is not a .keras archive"),
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    elif not name.startswith("absent"):
        (tmp_path / name).write_text("not a model")
    with pytest.raises(error, match=message):
        load_model(tmp_path / name)
