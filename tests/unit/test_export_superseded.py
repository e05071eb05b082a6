"""A version that no step serves any more keeps nobody from serving, whatever became of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.exports import dense_network, export_network, image_spec, label

from radserve.contracts.manifest import verify_repository
from radserve.errors import RepositoryError
from radserve_export.check import check_repository
from radserve_export.rollback import rollback

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Publish = Callable[..., None]


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    def export(seed: int, outputs: int = 3, **changes: Any) -> None:
        export_network(tmp_path, dense_network(seed=seed, outputs=outputs), image_spec(**changes))

    return export


@pytest.fixture
def models(tmp_path: Path, publish: Publish) -> Path:
    """Versions 1, 2 and 3, of which the step serves 2 and 3."""
    for seed in (1, 2, 3):
        publish(seed)
    return tmp_path / "models"


def _damage(path: Path) -> None:
    path.write_bytes(b"{")


@pytest.mark.parametrize(
    ("file", "is_served"),
    [
        ("tiny_pipeline/1/model.onnx", False),
        ("tiny_pipeline/2/model.onnx", True),
        ("tiny_pipeline/3/model.onnx", True),
        ("tiny/1/manifest.json", False),
        ("tiny/2/manifest.json", True),
        ("tiny/3/manifest.json", True),
        ("tiny/2/labels.txt", False),
        ("tiny/3/labels.txt", True),
        ("tiny_pipeline/config.pbtxt", True),
    ],
)
def test_only_damage_to_what_is_served_keeps_from_serving(models: Path, file: str, *, is_served: bool) -> None:
    _damage(models / file)
    assert any(file in line for line in verify_repository(models))
    assert any(file in line for line in verify_repository(models, served_only=True)) == is_served
    found = [finding.message for finding in check_repository(models) if finding.file == file]
    assert found
    assert any("no step serves this version" in message for message in found) != is_served


def test_a_step_that_only_the_version_before_has_is_loaded_and_compared(tmp_path: Path, publish: Publish) -> None:
    publish(1)
    publish(2)
    publish(3, outputs=2, labels=[label("a"), label("b")])
    models = tmp_path / "models"
    _damage(models / "tiny_pipeline/1/model.onnx")
    assert verify_repository(models, served_only=True) == [
        "tiny_pipeline/1/model.onnx: differs from what was published"
    ]


def test_a_rollback_to_a_damaged_version_is_refused_in_words(models: Path) -> None:
    _damage(models / "tiny_pipeline/1/model.onnx")
    with pytest.raises(RepositoryError, match=r"tiny_pipeline/1/model\.onnx is not what was published"):
        rollback(models, "tiny", to=1)


@pytest.mark.parametrize("to", [1, 9])
def test_a_malformed_manifest_does_not_take_the_words_from_a_rollback(models: Path, to: int) -> None:
    _damage(models / "tiny/1/manifest.json")
    with pytest.raises(RepositoryError, match="malformed" if to == 1 else "has no version 9 of tiny to read"):
        rollback(models, "tiny", to=to)
    assert rollback(models, "tiny", to=2).version == 4
