"""Every served file is as it was published, or it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
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


SECOND = ("m/config.pbtxt", "m_pipeline/config.pbtxt", "m_pipeline/2/model.onnx")


@pytest.mark.parametrize("change", ["edit", "remove", "add"])
def test_an_older_version_that_steps_go_on_serving_is_compared(repository: Path, change: str) -> None:
    publish(repository, 2, SECOND, ("m", "m_pipeline"))
    publish(repository, 3, (*SECOND[:2], "m_pipeline/3/model.onnx"), ("m", "m_pipeline"))
    assert verify_repository(repository) == []
    path = repository / SECOND[2]
    if change == "remove":
        path.unlink()
    else:
        path = path if change == "edit" else path.with_name("model.py")
        path.write_text("planted")
    (problem,) = verify_repository(repository)
    assert problem.startswith(f"{path.relative_to(repository)}: ")


def test_a_version_whose_manifest_is_gone_is_not_compared(repository: Path) -> None:
    publish(repository, 2, SECOND, ("m", "m_pipeline"))
    (repository / "m/1/manifest.json").unlink()
    (repository / FILES[2]).write_text("left over")
    assert verify_repository(repository) == []


def test_an_older_manifest_does_not_vouch_for_another_versions_files(repository: Path) -> None:
    publish(repository, 2, SECOND, ("m", "m_pipeline"))
    (repository / "m_pipeline/2/model.py").write_text("planted")
    path = repository / "m/1/manifest.json"
    manifest = read_manifest(path)
    planted = {"m_pipeline/2/model.py": hash_file(repository / "m_pipeline/2/model.py")}
    write_manifest(msgspec.structs.replace(manifest, files=manifest.files | planted), path)
    assert verify_repository(repository) == ["m_pipeline/2/model.py: not in the manifest"]


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
