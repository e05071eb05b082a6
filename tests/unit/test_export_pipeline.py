"""Exports of networks that need no TensorFlow: what is written, and what is measured first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.exports import (
    contents,
    dense_network,
    image_spec,
    label,
    siblings,
    text_spec,
    token_network,
    write_spec,
    write_tokenizer,
)

from radserve.contracts import parse_contract
from radserve.contracts.manifest import read_manifest, verify_repository
from radserve.errors import ExportError, SpecError
from radserve_export import pipeline
from radserve_export.check import check_repository
from radserve_export.triton_config import parse_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_export.network import Network


@pytest.fixture
def spec(tmp_path: Path, use_network: Callable[[Network], None]) -> Path:
    use_network(dense_network())
    return write_spec(tmp_path, image_spec())


STEPS_OF_TWO = {"tiny_pipeline": [1], "tiny_pipeline_2": [2]}


def test_an_export_publishes_what_it_checked(tmp_path: Path, spec: Path) -> None:
    done = pipeline.export(spec, tmp_path / "models")
    assert (done.name, done.version, done.is_new) == ("tiny", 1, True)
    assert set(contents(tmp_path / "models")) == {
        "README.md",
        "tiny/config.pbtxt",
        "tiny/1/labels.txt",
        "tiny/1/manifest.json",
        "tiny/1/configs/tiny.pbtxt",
        "tiny/1/configs/tiny_pipeline.pbtxt",
        "tiny_pipeline/config.pbtxt",
        "tiny_pipeline/1/model.onnx",
    }
    assert check_repository(tmp_path / "models") == []
    manifest = read_manifest(tmp_path / "models/tiny/1/manifest.json")
    assert manifest.parity["outputs"]["pipeline/PROBABILITIES"]["max_abs"] < 1e-6
    assert manifest.models == ("tiny", "tiny_pipeline")
    assert siblings(tmp_path / "models") == {"models", "tiny.yaml"}


def test_the_same_export_again_writes_nothing(tmp_path: Path, spec: Path) -> None:
    models = tmp_path / "models"
    pipeline.export(spec, models)
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    done = pipeline.export(spec, models)
    assert (done.version, done.is_new) == (1, False)
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before


def test_a_new_version_leaves_the_old_one_as_it_was(
    tmp_path: Path, spec: Path, use_network: Callable[[Network], None]
) -> None:
    models = tmp_path / "models"
    pipeline.export(spec, models)
    old = {name: content for name, content in contents(models).items() if "/1/" in name}
    use_network(dense_network(seed=1))
    assert pipeline.export(spec, models).version == 2
    assert {name: content for name, content in contents(models).items() if "/1/" in name} == old
    step = parse_config((models / "tiny_pipeline/config.pbtxt").read_bytes())
    assert list(step.version_policy.specific.versions) == [1, 2]
    ensemble = parse_config((models / "tiny/config.pbtxt").read_bytes())
    assert list(ensemble.version_policy.specific.versions) == [2]
    assert ensemble.ensemble_scheduling.step[0].model_version == 2
    assert parse_contract(ensemble.parameters["radserve.contract"].string_value).version == 2
    assert check_repository(models) == []
    assert pipeline.export(spec, models).is_new is False


def test_a_step_of_another_signature_gets_its_own_name(
    tmp_path: Path, spec: Path, use_network: Callable[[Network], None]
) -> None:
    models = tmp_path / "models"
    pipeline.export(spec, models)
    use_network(dense_network(outputs=2))
    write_spec(tmp_path, image_spec(labels=[label("a"), label("b")]))
    pipeline.export(spec, models)
    steps = {name: parse_config((models / name / "config.pbtxt").read_bytes()) for name in STEPS_OF_TWO}
    assert {name: list(step.version_policy.specific.versions) for name, step in steps.items()} == STEPS_OF_TWO
    ensemble = parse_config((models / "tiny/config.pbtxt").read_bytes())
    assert [step.model_name for step in ensemble.ensemble_scheduling.step] == ["tiny_pipeline_2"]
    assert check_repository(models) == []
    assert pipeline.export(spec, models).is_new is False


def test_text_models_export_with_their_tokenizer(tmp_path: Path, use_network: Callable[[Network], None]) -> None:
    use_network(token_network())
    pipeline.export(write_spec(tmp_path, text_spec()), tmp_path / "models")
    assert {path.name for path in (tmp_path / "models/words_tokenize/1").iterdir()} == {"model.py", "tokenizer.json"}
    assert check_repository(tmp_path / "models") == []


def test_a_models_own_text_layer_makes_the_tokenize_step(
    tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    write_tokenizer(tmp_path / "own.json")
    use_network(replace(token_network(), tokenizer=(tmp_path / "own.json").read_bytes()))
    pipeline.export(write_spec(tmp_path, text_spec(tokenizer=None)), tmp_path / "models")
    assert (tmp_path / "models/words_tokenize/1/tokenizer.json").is_file()
    with pytest.raises(SpecError, match="leave the spec's tokenizer out"):
        pipeline.export(write_spec(tmp_path, text_spec()), tmp_path / "models")


_FOUND: dict[str, Any] = {
    "n": 4,
    "seed": 1,
    "labels": ["a", "b", "c"],
    "confusion": [[2, 0, 0], [0, 1, 1], [0, 0, 0]],
    "accuracy": 0.75,
    "skew": {"n": 4, "max": 1.5e-6},
}


@pytest.fixture
def evaluated(tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spec, with an evaluation."""
    monkeypatch.setattr("radserve_export.spec.labels", lambda _generator: ("a", "b", "c"))
    plan = {"generator": "chest_xray", "samples": 4, "seed": 1, "minimum_accuracy": 0.5}
    write_spec(tmp_path, image_spec(evaluation=plan))
    return spec


def test_what_was_published_unmeasured_is_measured_when_the_spec_asks(tmp_path: Path, evaluated: Path) -> None:
    models = tmp_path / "models"
    assert pipeline.export(evaluated, models).version == 1
    asked: list[Path] = []

    def fail(staged: Path, spec: object, reference: object) -> dict[str, Any]:
        del spec, reference
        asked.append(staged)
        msg = "accuracy too low"
        raise ExportError(msg)

    with pytest.raises(ExportError, match="accuracy too low"):
        pipeline.export(evaluated, models, evaluate=fail)
    assert asked
    done = pipeline.export(evaluated, models, evaluate=lambda *_: _FOUND)
    assert (done.version, done.is_new, done.evaluation) == (2, True, _FOUND)
    again = pipeline.export(evaluated, models, evaluate=fail)
    assert (again.version, again.is_new, again.evaluation) == (2, False, _FOUND)


def test_a_failed_evaluation_publishes_nothing(tmp_path: Path, evaluated: Path) -> None:

    def evaluate(staged: Path, spec: object, reference: object) -> dict[str, Any]:
        del spec, reference
        assert verify_repository(staged) == []
        msg = "accuracy too low"
        raise ExportError(msg)

    with pytest.raises(ExportError, match="accuracy too low"):
        pipeline.export(evaluated, tmp_path / "models", evaluate=evaluate)
    assert siblings(tmp_path / "models") == {"tiny.yaml"}


def test_the_evaluation_is_in_the_manifest_and_in_the_readme(tmp_path: Path, evaluated: Path) -> None:
    pipeline.export(evaluated, tmp_path / "models", evaluate=lambda *_: _FOUND)
    assert read_manifest(tmp_path / "models/tiny/1/manifest.json").evaluation == _FOUND
    text = (tmp_path / "models/README.md").read_text()
    assert "| `tiny` | 1 | 0.750 | 4 | 1.5e-06 | " in text
    assert "| **b** | 0 | 1 | 1 |" in text
    assert verify_repository(tmp_path / "models") == []


def test_the_same_files_compared_on_other_terms_are_a_version_of_their_own(tmp_path: Path, spec: Path) -> None:
    models = tmp_path / "models"
    pipeline.export(spec, models)
    write_spec(tmp_path, image_spec(parity={"input_range": [0, 200]}))
    done = pipeline.export(spec, models)
    assert (done.version, done.is_new) == (2, True)
    found = [read_manifest(models / f"tiny/{version}/manifest.json").parity["input_range"] for version in (1, 2)]
    assert found == [None, [0, 200]]
    assert (pipeline.export(spec, models).version, pipeline.export(spec, models).is_new) == (2, False)
