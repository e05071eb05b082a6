"""Every served file is as it was published, or it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from radserve.contracts.manifest import Manifest, hash_file, read_manifest, verify_repository, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("m/config.pbtxt", "m_pipeline/config.pbtxt", "m_pipeline/1/model.onnx")


def publish(root: Path, version: int, files: tuple[str, ...], models: tuple[str, ...]) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name} {version}")
    (root / "m" / str(version)).mkdir(parents=True)
    manifest = Manifest(
        name="m",
        version=version,
        models=models,
        files={name: hash_file(root / name) for name in files},
        source_sha256="0" * 64,
        tools={},
    )
    write_manifest(manifest, root / "m" / str(version) / "manifest.json")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path, 1, FILES, ("m", "m_pipeline"))
    return tmp_path


def test_published_repository_has_no_difference(repository: Path) -> None:
    (repository / "README.md").write_text("not served")
    assert verify_repository(repository) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["edit", "remove"])
def test_changed_file_is_named(repository: Path, name: str, change: str) -> None:
    if change == "edit":
        (repository / name).write_text("something else")
    else:
        (repository / name).unlink()
    (problem,) = verify_repository(repository)
    assert problem.startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["m_pipeline/1/model.py", "m_pipeline/extra.so", "other/1/model.py"])
def test_added_file_is_named(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("planted")
    (problem,) = verify_repository(repository)
    assert problem.startswith(name if name.startswith("m_") else "other")


def test_link_out_of_the_repository_is_named(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    served = repository / FILES[2]
    outside = tmp_path_factory.mktemp("outside") / "model.onnx"
    served.rename(outside)
    served.symlink_to(outside)
    assert any("leaves the repository" in problem for problem in verify_repository(repository))


def test_malformed_manifest_is_named(repository: Path) -> None:
    path = repository / "m" / "1" / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": "one"'))
    assert any("m/1/manifest.json is malformed" in problem for problem in verify_repository(repository))


def test_version_that_is_no_longer_served_is_not_compared(repository: Path) -> None:
    publish(
        repository, 2, ("m/config.pbtxt", "m_pipeline/config.pbtxt", "m_pipeline/2/model.onnx"), ("m", "m_pipeline")
    )
    (repository / FILES[2]).write_text("superseded")
    assert verify_repository(repository) == []


def test_step_that_a_newer_version_does_without_keeps_its_older_manifest(repository: Path) -> None:
    publish(repository, 2, ("m/config.pbtxt", "m_network/config.pbtxt", "m_network/2/model.onnx"), ("m", "m_network"))
    assert verify_repository(repository) == []
    (repository / FILES[2]).write_text("planted")
    (problem,) = verify_repository(repository)
    assert problem.startswith(FILES[2])


def test_manifest_survives_the_round_trip(repository: Path) -> None:
    path = repository / "m" / "1" / "manifest.json"
    before = path.read_bytes()
    write_manifest(read_manifest(path), path)
    assert path.read_bytes() == before
