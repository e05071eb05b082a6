"""Versions of the model ``tiny``, published one after the other, and what a reader sees of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.exports import dense_network, export_network, image_spec

from radserve.contracts import CONTRACT_PARAMETER, Contract, parse_contract
from radserve.contracts.manifest import read_manifest, verify_repository
from radserve_export.check import check_repository
from radserve_export.triton_config import parse_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Publish = Callable[..., int]

WIDTHS = {1: 400, 2: 1500, 3: 80}


def described(version: int, **changes: Any) -> dict[str, Any]:
    """A spec whose window tells the version."""
    window = {"kind": "fixed", "center": 40, "width": WIDTHS[version]}
    spec = image_spec(**changes)
    return {**spec, "input": {**spec["input"], "modalities": ["CT"], "window": window}}


def publisher(tmp_path: Path) -> Publish:
    """A function that exports a version to ``tmp_path/models``."""

    def export(version: int, outputs: int = 3, **changes: Any) -> int:
        network = dense_network(seed=version, outputs=outputs)
        return export_network(tmp_path, network, described(version, **changes)).version

    return export


def contract_of(models: Path) -> Contract:
    config = parse_config((models / "tiny/config.pbtxt").read_bytes())
    return parse_contract(config.parameters[CONTRACT_PARAMETER].string_value)


def pins(models: Path) -> dict[str, int]:
    config = parse_config((models / "tiny/config.pbtxt").read_bytes())
    return {step.model_name: step.model_version for step in config.ensemble_scheduling.step}


def served(models: Path, step: str) -> list[int]:
    return list(parse_config((models / step / "config.pbtxt").read_bytes()).version_policy.specific.versions)


def is_whole(models: Path, versions: dict[int, int]) -> int:
    """The version that a reader sees, all of it; ``versions`` says which window belongs to it."""
    assert verify_repository(models) == []
    assert check_repository(models) == []
    contract = contract_of(models)
    assert contract.input is not None
    assert contract.input.window.width == versions[contract.version]  # type: ignore[union-attr]  # a fixed window
    manifest = read_manifest(models / f"tiny/{contract.version}/manifest.json")
    assert manifest.version == contract.version
    for step, pinned in pins(models).items():
        assert pinned == contract.version
        assert pinned in served(models, step)
        assert f"{step}/{pinned}/model.onnx" in manifest.files
    return contract.version
