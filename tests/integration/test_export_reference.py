"""The committed trained models, exported again, are the committed model repository.

Graphs are compared exactly, weights included: loading and converting them folds
no arithmetic on weights, so another processor gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest

from radserve.contracts import CONTRACT_PARAMETER, parse_contract
from radserve.contracts.manifest import hash_file, latest_manifests, read_manifest, verify_repository
from radserve_export import pipeline
from radserve_export.check import check_repository
from radserve_export.spec import load_spec
from radserve_export.summary import SUMMARY_FILE, summarise
from radserve_export.triton_config import parse_config

if TYPE_CHECKING:
    from radserve.contracts import Contract

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "model_repository"
SPECS = sorted((ROOT / "export/specs").glob("*.yaml"))


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All specs, exported to a folder of their own in the version that is committed."""
    models = tmp_path_factory.mktemp("again") / "models"
    for spec in SPECS:
        pipeline.export(spec, models)
    return models


@pytest.fixture(params=latest_manifests(COMMITTED), ids=lambda path: str(path.parent.parent.name))
def models(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """A public model and its steps."""
    return read_manifest(request.param).models


def _contract(config: Path) -> Contract:
    return parse_contract(parse_config(config.read_bytes()).parameters[CONTRACT_PARAMETER].string_value)


def test_configurations_are_those_committed(again: Path, models: tuple[str, ...]) -> None:
    for name in models:
        file = f"{name}/config.pbtxt"
        assert (again / file).read_text() == (COMMITTED / file).read_text(), file


def test_the_contract_is_the_one_committed(again: Path, models: tuple[str, ...]) -> None:
    file = f"{models[0]}/config.pbtxt"
    assert _contract(again / file) == _contract(COMMITTED / file)


def test_graphs_are_those_committed(again: Path, models: tuple[str, ...]) -> None:
    found = sorted(path.relative_to(again) for name in models for path in (again / name).rglob("model.onnx"))
    assert found
    for file in found:
        made, committed = onnx.load(again / file), onnx.load(COMMITTED / file)
        assert [node.SerializeToString() for node in made.graph.node] == [
            node.SerializeToString() for node in committed.graph.node
        ], file
        for one, other in zip(made.graph.initializer, committed.graph.initializer, strict=True):
            assert one == other, f"{file}: {one.name}"
        assert made == committed, file


def test_all_other_files_are_those_committed(again: Path, models: tuple[str, ...]) -> None:
    for name in models:
        files = {path.relative_to(again) for path in (again / name).rglob("*") if path.is_file()}
        committed = {
            path.relative_to(COMMITTED)
            for path in (COMMITTED / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert files == committed
        for file in files:
            if file.name != "manifest.json":  # it holds tool versions and the measured accuracy
                assert (again / file).read_bytes() == (COMMITTED / file).read_bytes(), file


def test_every_hash_of_every_manifest_holds() -> None:
    manifests = sorted(COMMITTED.glob("*/*/manifest.json"))
    assert manifests
    for path in manifests:
        for file, expected in read_manifest(path).files.items():
            assert hash_file(COMMITTED / file) == expected, file
    assert verify_repository(COMMITTED) == []


def test_manifests_name_the_trained_model_and_its_accuracy() -> None:
    for path in SPECS:
        spec = load_spec(path)
        (found,) = [m for m in map(read_manifest, latest_manifests(COMMITTED)) if m.name == spec.name]
        assert found.source_sha256 == hash_file(path.parent / spec.model)
        assert spec.evaluation is not None
        assert found.evaluation is not None
        assert found.evaluation["n"] == spec.evaluation.samples
        assert found.evaluation[spec.metric] >= spec.evaluation.minimum > 0


def test_every_model_has_a_reference_and_the_one_with_evidence_maps_that_of_its_plain_one() -> None:
    contracts = [_contract(path.parents[1] / "config.pbtxt") for path in latest_manifests(COMMITTED)]
    found = {contract.name: contract.reference for contract in contracts}
    assert all(reference is not None and reference.level is not None for reference in found.values())
    assert found["chest_xray_evidence"] == found["chest_xray"]


def test_the_committed_repository_has_no_findings_and_its_readme_is_current() -> None:
    assert check_repository(COMMITTED) == []
    assert (COMMITTED / SUMMARY_FILE).read_bytes() == summarise(COMMITTED)
