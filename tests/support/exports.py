"""Specs and networks for the exporter's tests: small, untrained, most without TensorFlow."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from radserve_export import pipeline
from radserve_export.graphs import BATCH, NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain, new_model
from radserve_export.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export.network import Runner

ROWS, COLUMNS, FEATURES = 4, 3, 12
MAX_TOKENS = 6
WORDS = ("[PAD]", "[UNK]", "no", "pneumothorax", "large", "effusion")


def label(name: str, **more: Any) -> dict[str, Any]:
    """One label of a spec."""
    return {"name": name, "code": {"value": name, "scheme": "99RADSERVE", "meaning": name}, **more}


def image_spec(**changes: Any) -> dict[str, Any]:
    """A spec of an image classifier with three exclusive labels."""
    spec: dict[str, Any] = {
        "name": "tiny",
        "task": "image_classification",
        "model": "tiny.keras",
        "input": {
            "kind": "image",
            "modalities": ["DX"],
            "rows": ROWS,
            "columns": COLUMNS,
            "window": {"kind": "file"},
        },
        "network_input": {"scale": 1 / 255, "mean": [0.5], "std": [0.25]},
        "exclusive": True,
        "labels": [label("a"), label("b"), label("c")],
    }
    return {name: value for name, value in (spec | changes).items() if value is not None}


def text_spec(**changes: Any) -> dict[str, Any]:
    """A spec of a text classifier with one label."""
    spec: dict[str, Any] = {
        "name": "words",
        "task": "text_classification",
        "model": "words.keras",
        "tokenizer": "tokenizer.json",
        "input": {"kind": "text", "languages": ["en"], "max_tokens": MAX_TOKENS},
        "labels": [label("critical")],
    }
    return {name: value for name, value in (spec | changes).items() if value is not None}


def write_spec(folder: Path, spec: dict[str, Any]) -> Path:
    """Write a spec, and the tokenizer that it may name."""
    path = folder / f"{spec.get('name', 'spec')}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    if spec.get("tokenizer"):
        write_tokenizer(folder / "tokenizer.json")
    return path


def write_tokenizer(path: Path, words: tuple[str, ...] = WORDS) -> None:
    """A tokenizer of whole words that, as trained ones may, truncates and pads."""
    described: dict[str, Any] = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": words[1],
        },
    }
    path.write_text(json.dumps(described))


def _network(nodes: list[onnx.NodeProto], kind: int, dims: tuple[int, ...], weights: dict[str, Any], n: int) -> Network:
    shape: list[int | str | None] = [BATCH, *dims]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(NETWORK_INPUT, kind, shape)],
        [helper.make_tensor_value_info(NETWORK_OUTPUT, TensorProto.FLOAT, [BATCH, n])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = new_model(graph)
    return Network(
        graph=model, reference=runner(model), vocabulary=len(WORDS), source_sha256="0" * 64, tools={"keras": "3"}
    )


def runner(model: onnx.ModelProto) -> Runner:
    """A graph as a function."""
    return Chain([model])


def dense_network(*, outputs: int = 3, seed: int = 0, rows: int = ROWS) -> Network:
    """Flatten, MatMul, Softmax on ``(rows, COLUMNS, 1)``; it is its own reference."""
    weights: NDArray[np.float32] = np.random.default_rng(seed).normal(size=(rows * COLUMNS, outputs)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", [NETWORK_INPUT], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"], "dense"),
        helper.make_node("Softmax", ["logits"], [NETWORK_OUTPUT], "softmax"),
    ]
    return _network(nodes, TensorProto.FLOAT, (rows, COLUMNS, 1), {"weights": weights}, outputs)


def token_network() -> Network:
    """The share of padding in the text; takes int64, as some embeddings do."""
    nodes = [
        helper.make_node("Equal", [NETWORK_INPUT, "zero"], ["padding"], "equal"),
        helper.make_node("Cast", ["padding"], ["as_float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["as_float", "axes"], [NETWORK_OUTPUT], "mean", keepdims=1),
    ]
    weights = {"zero": np.array(0, np.int64), "axes": np.array([1], np.int64)}
    return _network(nodes, TensorProto.INT64, (MAX_TOKENS,), weights, 1)


def export_network(folder: Path, network: Network, described: dict[str, Any]) -> pipeline.Exported:
    """Export to ``FOLDER/models`` what a spec describes, as if its model had been converted to a network."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pipeline, "converted_network", lambda *_args, **_options: nullcontext(network))
        return pipeline.export(write_spec(folder, described), folder / "models")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def siblings(folder: Path) -> set[str]:
    """Names of what lies beside a folder, itself included."""
    return {path.name for path in folder.parent.iterdir()}
