"""What ``radserve check`` finds: one broken repository for each kind of finding, and none in those that are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from support.broken import BROKEN
from support.exports import dense_network, export_network, image_spec
from support.foreign import CONFIGS, write_foreign
from tritonclient.grpc import model_config_pb2 as pb

from radserve.errors import RepositoryError
from radserve_export.check import check_repository
from radserve_export.checks.pbtxt import scan

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parent.parent.parent / "model_repository"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository of this exporter: a model in three steps."""
    export_network(tmp_path, dense_network(), image_spec(serving={"fuse": False}))
    return tmp_path / "models"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A repository of other makers."""
    write_foreign(tmp_path / "foreign")
    return tmp_path / "foreign"


def _findings(models: Path) -> list[str]:
    return [f"{finding.file}:{finding.line}: {finding.message}" for finding in check_repository(models)]


def _break(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_what_was_exported_has_no_findings(models: Path) -> None:
    assert _findings(models) == []


def test_the_reference_models_have_no_findings() -> None:
    assert _findings(REPOSITORY) == []


def test_what_others_wrote_rightly_has_no_findings(foreign: Path) -> None:
    assert _findings(foreign) == []


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_is_found_where_it_stands(foreign: Path, kind: str) -> None:
    model, old, new, mark, message = BROKEN[kind]
    path = foreign / model / "config.pbtxt"
    _break(path, old, new)
    found = [finding for finding in check_repository(foreign) if message in finding.message]
    assert found, _findings(foreign)
    assert found[0].file == f"{model}/config.pbtxt"
    text = path.read_text()
    if mark and found[0].line != text[: text.index(mark)].count("\n") + 1:
        pytest.fail(f"line {found[0].line}: {text.splitlines()[found[0].line - 1]}")


def _without_config(foreign: Path) -> None:
    (foreign / "bare/config.pbtxt").unlink()


def _leading_zero(foreign: Path) -> None:
    (foreign / "torch/1").rename(foreign / "torch/01")


def _named_version(foreign: Path) -> None:
    (foreign / "plan/2").rename(foreign / "plan/latest")


def _no_file(foreign: Path) -> None:
    (foreign / "torch/1/model.pt").unlink()


def _pointer(foreign: Path) -> None:
    (foreign / "bare/1/model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _half_a_graph(foreign: Path) -> None:
    path = foreign / "bare/1/model.onnx"
    path.write_bytes(path.read_bytes()[:-20])


def _outside(foreign: Path) -> None:
    (foreign.parent / "model.plan").write_text("plan")
    (foreign / "plan/1/model.plan").unlink()
    (foreign / "plan/1/model.plan").symlink_to(foreign.parent / "model.plan")


def _external(foreign: Path, location: str = "weights") -> Path:
    path = foreign / "bare/1/model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location=location)
    return path.parent


def _weights_gone(foreign: Path) -> None:
    (_external(foreign) / "weights").unlink()


def _weights_outside(foreign: Path) -> None:
    _external(foreign)
    path = foreign / "bare/1/model.onnx"
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../../../weights"
    path.write_bytes(model.SerializeToString())


def _syntax(foreign: Path) -> None:
    _break(foreign / "prepare/1/model.py", "def execute", "deaf execute")


def _no_class(foreign: Path) -> None:
    _break(foreign / "prepare/1/model.py", "class TritonPythonModel", "class Model")


def _few_labels(foreign: Path) -> None:
    (foreign / "classify/names.txt").write_text("a\nb\n")


def _fixed_batch(foreign: Path) -> None:
    path = foreign / "classify/2/model.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    path.write_bytes(model.SerializeToString())


def _no_steps(foreign: Path) -> None:
    path = foreign / "whole/config.pbtxt"
    path.write_text(path.read_text().partition("ensemble_scheduling")[0] + "ensemble_scheduling { }\n")


def _unserved_pin(foreign: Path) -> None:
    _break(foreign / "classify/config.pbtxt", "num_versions: 2", "num_versions: 1")
    _break(foreign / "chain/config.pbtxt", "model_version: -1", "model_version: 1")


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (_without_config, "bare/config.pbtxt:1: is missing: only a server that completes configurations"),
        (_leading_zero, "torch/01:1: is no version to Triton: name it with a number above 0"),
        (_leading_zero, "torch/config.pbtxt:1: has no version folder"),
        (_named_version, "plan/latest:1: is no version to Triton"),
        (_no_file, "torch/1:1: has no model.pt or model.py, which its backend loads"),
        (_pointer, "bare/1/model.onnx:1: is a pointer of Git LFS, no model: git lfs pull"),
        (_half_a_graph, "bare/1/model.onnx:1: is no graph"),
        (_outside, "plan/1/model.plan:1: leaves the repository"),
        (_weights_gone, "bare/1/model.onnx:1: keeps weights in weights, which is not there"),
        (_weights_outside, "bare/1/model.onnx:1: keeps weights outside its folder, in ../../../weights"),
        (_syntax, "prepare/1/model.py:6: is no Python: invalid syntax"),
        (_no_class, "prepare/1/model.py:1: has no class TritonPythonModel"),
        (_few_labels, "classify/config.pbtxt:18: Y has [4] values, names.txt 2 lines"),
        (_fixed_batch, "classify/config.pbtxt:3: batches need a free first axis, but that of X is [1]"),
        (_no_steps, "whole/config.pbtxt:4: an ensemble without steps"),
        (_unserved_pin, "chain/config.pbtxt:9: step classify is pinned to version 1, which its policy does not serve"),
    ],
)
def test_what_is_wrong_with_files_is_found(foreign: Path, damage: Callable[[Path], None], finding: str) -> None:
    damage(foreign)
    assert any(line.startswith(finding) for line in _findings(foreign)), _findings(foreign)


def test_weights_beside_the_graph_are_right(foreign: Path) -> None:
    _external(foreign)
    assert _findings(foreign) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("onnx", "onnxruntime"),
        ("ONNXRuntime", "onnxruntime"),
        ("onnxruntime_onnx", "onnxruntime"),
        ("tensorrt_plan", "tensorrt"),
    ],
)
def test_a_backend_that_is_nearly_one_is_told(foreign: Path, name: str, meant: str) -> None:
    (foreign / "words/config.pbtxt").write_text(f'name: "words"\nbackend: "{name}"\nmax_batch_size: 4\n')
    found = f"words/config.pbtxt:2: backend {name} is none of Triton's, and no libtriton_{name}.so is here: did you"
    assert [line for line in _findings(foreign) if line.startswith(found)], _findings(foreign)
    assert f"did you mean {meant}?" in "".join(_findings(foreign))


def test_a_backend_that_only_the_server_has_is_right_if_it_is_named(foreign: Path) -> None:
    _break(foreign / "custom/config.pbtxt", 'backend: "our_own"', 'backend: "their_own"')
    (found,) = check_repository(foreign)
    assert found.message.endswith("if the server has it, give --backend their_own")
    assert check_repository(foreign, ["their_own"]) == []


def test_a_backend_under_a_name_of_its_own_file_is_right(foreign: Path) -> None:
    _break(foreign / "custom/config.pbtxt", 'backend: "our_own"', 'backend: "their_own"\nruntime: "libtheirs.so"')
    (foreign / "custom/1/libtheirs.so").touch()
    assert _findings(foreign) == []


@pytest.mark.parametrize(
    ("model", "old", "new", "finding"),
    [
        ("tiny", "TYPE_INT8", "TYPE_INT16", "the contract has other outputs"),
        ("tiny", '\\"version\\":1', '\\"version\\":2', "the contract is of version 2, which is not served"),
        ("tiny", '\\"name\\":\\"tiny\\"', '\\"name\\":\\"other\\"', "the contract is that of other"),
        ("tiny", "max_batch_size: 64", "max_batch_size: 32", "the contract has another max_batch_size"),
        ("tiny", "model_version: 1", "model_version: -1", "step tiny_preprocess is not pinned to a version"),
        ("tiny", "1/labels.txt", "1/names.txt", "names 1/names.txt, which is not there"),
        (
            "tiny_network",
            "priority_levels: 3",
            "priority_levels: 2",
            "ensemble tiny has steps with 3: urgency would be",
        ),
    ],
)
def test_a_contradiction_of_our_own_is_found(models: Path, model: str, old: str, new: str, finding: str) -> None:
    _break(models / model / "config.pbtxt", old, new)
    found = _findings(models)
    assert any(finding in line for line in found), found
    assert f"{model}/config.pbtxt:1: differs from what was published" in found


def test_a_contract_of_a_newer_schema_is_found_on_its_line(models: Path) -> None:
    path = models / "tiny/config.pbtxt"
    text = re.sub(r'\\"schema_version\\":\d+', r'\\"schema_version\\":99', path.read_text())
    path.write_text(text)
    line = text[: text.index("schema_version")].count("\n") + 1
    assert any(found.startswith(f"tiny/config.pbtxt:{line}: ") and "99" in found for found in _findings(models))


def test_steps_of_a_public_model_without_priorities_are_found(models: Path) -> None:
    for path in models.glob("tiny_*/config.pbtxt"):
        _break(path, "  priority_levels: 3\n  default_priority_level: 3\n", "")
    found = [line for line in _findings(models) if "has no priority levels, but callers of tiny set" in line]
    assert len(found) == 3


def test_a_folder_beside_published_models_is_covered_by_no_manifest(models: Path) -> None:
    (models / "stray").mkdir()
    assert "stray:1: no manifest covers this model" in _findings(models)


def test_a_malformed_manifest_is_named(models: Path) -> None:
    (models / "tiny/1/manifest.json").write_text("{}")
    assert any(line.startswith("tiny/1/manifest.json:1: is malformed: ") for line in _findings(models))


def test_no_repository_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="there is no model repository"):
        check_repository(tmp_path / "absent")


@pytest.mark.parametrize("name", CONFIGS)
def test_each_field_stands_on_its_line(name: str) -> None:
    root = scan(CONFIGS[name])
    text = CONFIGS[name].splitlines()
    assert [field.line for field in root.fields] == sorted(field.line for field in root.fields)
    for field in root.fields:
        for one in (field, *field.fields):
            line = text[one.line - 1].strip()
            assert one.name in line or line[0] in "{<", "an element of a list begins with its bracket"


_NAMES = st.text("abcxyz_{}[]<>:,;#'\\ \n\"", min_size=1, max_size=12)


@given(names=st.lists(_NAMES, min_size=1, max_size=4), one_line=st.booleans())
def test_any_configuration_is_scanned_to_its_end(names: list[str], *, one_line: bool) -> None:
    config = pb.ModelConfig(name="m", max_batch_size=3)
    for name in names:
        config.input.add(name=name, dims=[1, 2])
        config.parameters[name].string_value = name
    text = text_format.MessageToString(config, as_one_line=one_line)
    root = scan(text)
    assert [field.name for field in root.fields].count("input") == len(names)
    assert len(root.all("parameters")) == len(set(names))
    assert [field.name for field in root.at("input").fields] == ["name", "dims", "dims"]
    assert root.at("max_batch_size").value == "3"
