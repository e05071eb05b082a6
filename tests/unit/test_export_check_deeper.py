"""What ``radserve check`` finds inside files, and between public models."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import helper
from support.exports import dense_network, export_network, image_spec, text_spec, token_network
from support.foreign import write_foreign

from radserve_export.check import check_repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_GRAPH = "bare/1/model.onnx"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A repository of other makers, nothing wrong."""
    write_foreign(tmp_path / "foreign")
    return tmp_path / "foreign"


def _findings(models: Path) -> list[str]:
    return [f"{finding.file}:{finding.line}: {finding.message}" for finding in check_repository(models)]


@pytest.mark.parametrize("inside", [None, "README.md", ".git/config"])
def test_a_folder_without_models_is_no_repository(tmp_path: Path, inside: str | None) -> None:
    if inside is not None:
        (tmp_path / inside).parent.mkdir(exist_ok=True)
        (tmp_path / inside).touch()
    assert _findings(tmp_path) == [".:1: holds no model: is this the repository's folder?"]


def _unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Rely"


def _operator_of_the_future(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Gelu"  # since opset 20


def _unknown_contribution(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].domain = "Rely", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _own_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].domain = "Rely", "ours"
    model.opset_import.append(helper.make_opsetid("ours", 1))


def _dangling(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nothing"


def _new_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def _new_format(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def _contribution(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].domain = "Gelu", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _plugin(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type, model.graph.node[1].domain = "Rely", "trt.plugins"
    model.opset_import.append(helper.make_opsetid("trt.plugins", 1))


def _change(foreign: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(foreign / _GRAPH)
    change(model)
    (foreign / _GRAPH).write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (_unknown_operator, "uses Rely, an operator that ONNX Runtime has not"),
        (_operator_of_the_future, "is no valid graph: No Op registered for Gelu with domain_version of 18"),
        (_unknown_contribution, "uses com.microsoft::Rely, an operator that ONNX Runtime has not"),
        (_own_operator, "uses ours::Rely, an operator that ONNX Runtime has not"),
        (_dangling, "is no valid graph: Nodes in a graph must be topologically sorted, however input 'nothing'"),
        (_new_opset, "has opset 99: the newest is "),
        (_new_format, "has IR version 99: the newest is "),
    ],
)
def test_a_graph_that_would_not_be_loaded_is_found(
    foreign: Path, change: Callable[[onnx.ModelProto], None], finding: str
) -> None:
    _change(foreign, change)
    (found,) = _findings(foreign)
    assert found.startswith(f"{_GRAPH}:1: {finding}")


@pytest.mark.parametrize("change", [_contribution, _plugin])
def test_operators_that_the_runtime_adds_are_right(foreign: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    _change(foreign, change)
    assert _findings(foreign) == []


def test_operators_of_a_library_that_the_configuration_names_are_right(foreign: Path) -> None:
    _change(foreign, _own_operator)
    config = foreign / "bare/config.pbtxt"
    config.write_text(config.read_text() + 'model_operations { op_library_filename: "ours.so" }\n')
    assert _findings(foreign) == []


def _ensemble(step: str) -> str:
    return f"""platform: "ensemble"
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] }} ]
ensemble_scheduling {{ step {{
  model_name: "{step}" model_version: -1
  input_map {{ key: "IN" value: "IN" }} output_map {{ key: "OUT" value: "OUT" }} }} }}
"""


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ({"one": "one"}, ["one/config.pbtxt:5: step one is the ensemble itself"]),
        (
            {"one": "two", "two": "one", "outside": "one"},
            [
                "one/config.pbtxt:5: step two leads back to the ensemble",
                "two/config.pbtxt:5: step one leads back to the ensemble",
            ],
        ),
    ],
)
def test_ensembles_that_call_each_other_are_found(foreign: Path, steps: dict[str, str], found: list[str]) -> None:
    for name, step in steps.items():
        (foreign / name / "1").mkdir(parents=True)
        (foreign / name / "config.pbtxt").write_text(_ensemble(step))
    assert _findings(foreign) == found


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Models of this exporter, as they lie where their manifests were left behind."""
    for network, spec in ((dense_network(), image_spec()), (token_network(), text_spec())):
        export_network(tmp_path, network, spec)
    for manifest in (tmp_path / "models").glob("*/*/manifest.json"):
        manifest.unlink()
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            ["b", "a", "c"],
            [
                "line 1 of 1/labels.txt is b, but that label is a in the contract",
                "line 2 of 1/labels.txt is a, but that label is b in the contract",
            ],
        ),
        (["a", "a", "c"], ["line 2 of 1/labels.txt is a, but that label is b in the contract"]),
    ],
)
def test_labels_that_the_contract_names_otherwise_are_found(models: Path, lines: list[str], found: list[str]) -> None:
    (models / "tiny/1/labels.txt").write_text("".join(f"{line}\n" for line in lines))
    text = (models / "tiny/config.pbtxt").read_text()
    line = text[: text.index("schema_version")].count("\n") + 1
    assert _findings(models) == [f"tiny/config.pbtxt:{line}: {message}" for message in found]


def test_a_label_that_is_renamed_in_the_contract_is_found(models: Path) -> None:
    path = models / "tiny/config.pbtxt"
    old = r"\"name\":\"b\""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, old.replace("b", "B"), 1))
    (found,) = _findings(models)
    assert found.endswith("line 2 of 1/labels.txt is b, but that label is B in the contract")


def test_a_file_that_a_python_step_reads_is_missed(models: Path) -> None:
    assert _findings(models) == []
    (models / "words_tokenize/1/tokenizer.json").unlink()
    source = (models / "words_tokenize/1/model.py").read_text()
    line = source[: source.index("from_file")].count("\n") + 1
    assert _findings(models) == [f"words_tokenize/1/model.py:{line}: reads tokenizer.json, which is not beside it"]


def test_files_elsewhere_are_not_looked_for(models: Path) -> None:
    path = models / "words_tokenize/1/model.py"
    path.write_text(path.read_text().replace('Path(args["model_repository"])', 'Path("/opt")'))
    shutil.move(models / "words_tokenize/1/tokenizer.json", models.parent / "tokenizer.json")
    assert _findings(models) == []
