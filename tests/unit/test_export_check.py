from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnx
import pytest
from support.exports import dense_network, image_spec, write_spec

from radserve.errors import RepositoryError
from radserve_export import pipeline
from radserve_export.check import check_repository

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of a model in three steps."""
    monkeypatch.setattr(pipeline, "_network", lambda *_args, **_options: dense_network())
    pipeline.export(write_spec(tmp_path, image_spec(serving={"fuse": False})), tmp_path / "models")
    return tmp_path / "models"


def _findings(models: Path) -> list[str]:
    return [f"{finding.file}: {finding.message}" for finding in check_repository(models)]


def test_what_was_exported_has_no_findings(models: Path) -> None:
    assert _findings(models) == []


@pytest.mark.parametrize(
    ("model", "old", "new", "finding"),
    [
        ("tiny_network", "TYPE_FP32", "TYPE_FP16", "input NETWORK_INPUT is FP16 [4, 3, 1] here, but FP32 [4, 3, 1]"),
        ("tiny_network", "dims: 4", "dims: 5", "takes NETWORK_INPUT as FP32 [5, 3, 1], but it is FP32 [4, 3, 1]"),
        ("tiny_network", '"NETWORK_OUTPUT"', '"OTHER"', "NETWORK_OUTPUT is none of its outputs"),
        ("tiny_network", "priority_levels: 3", "priority_levels: 2", "the steps differ in their priority levels"),
        ("tiny_network", "max_batch_size: 64", "max_batch_size: 8", "takes batches of 8, the ensemble of 64"),
        ("tiny_network", "versions: 1", "versions: 2", "serves version 2, which is not there"),
        ("tiny_network", 'name: "tiny_network"', 'name: "other"', "names the model other, its folder tiny_network"),
        ("tiny_network", "version_policy", "version_police", "not a model configuration: 2:1"),
        ("tiny", "model_version: 1", "model_version: 2", "is pinned to version 2, which is not there"),
        ("tiny", "model_version: 1", "", "is not pinned to a version"),
        ("tiny", 'model_name: "tiny_network"', 'model_name: "absent"', "step absent is not there"),
        ("tiny", 'key: "NETWORK_INPUT"', 'key: "X"', "step tiny_network takes NETWORK_INPUT, which nothing makes"),
        ("tiny", 'key: "PIXELS"', 'key: "X"', "step tiny_preprocess: input PIXELS is not fed"),
        ("tiny", 'value: "NETWORK_INPUT"', 'value: "NOTHING"', "NETWORK_INPUT"),
        ("tiny", 'value: "DECISIONS"', 'value: "UNREAD"', "tensor UNREAD is read by nothing"),
        ("tiny", "TYPE_INT8", "TYPE_INT16", "the contract has other outputs"),
        ("tiny", '\\"version\\":1', '\\"version\\":2', "the contract is of version 2, which is not served"),
        ("tiny", '\\"schema_version\\":1', '\\"schema_version\\":9', "schema version 9"),
        ("tiny", "labels.txt", "names.txt", "names names.txt, which is not there"),
    ],
)
def test_a_contradiction_is_found(models: Path, model: str, old: str, new: str, finding: str) -> None:
    path = models / model / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(re.sub(re.escape(old), new.replace("\\", r"\\"), text, count=1))
    found = _findings(models)
    assert any(finding in line for line in found), found
    assert any("differs from what was published" in line for line in found)


def test_a_label_too_many_is_found(models: Path) -> None:
    (models / "tiny/labels.txt").write_text("a\nb\nc\nd\n")
    assert any("PROBABILITIES has [3] values, labels.txt 4 lines" in line for line in _findings(models))


def test_a_truncated_graph_is_found(models: Path) -> None:
    path = models / "tiny_network/1/model.onnx"
    path.write_bytes(path.read_bytes()[:-20])
    assert any(line.startswith("tiny_network/1/model.onnx: is no graph") for line in _findings(models))


def test_weights_in_another_file_are_found(models: Path) -> None:
    path = models / "tiny_network/1/model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="weights")
    assert any("keeps its weights in another file" in line for line in _findings(models))


def test_a_folder_without_configuration_is_found(models: Path) -> None:
    (models / "stray").mkdir()
    found = _findings(models)
    assert "stray/config.pbtxt: cannot be read: No such file or directory" in found
    assert "stray: no manifest covers this model" in found


def test_no_repository_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="there is no model repository"):
        check_repository(tmp_path / "absent")
