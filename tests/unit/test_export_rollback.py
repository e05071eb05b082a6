"""What a rollback publishes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from support.exports import contents, label
from support.publications import WIDTHS, contract_of, is_whole, pins, publisher, served

from radserve.contracts import SCHEMA_VERSION
from radserve.contracts.manifest import read_manifest, verify_repository
from radserve.errors import RepositoryError
from radserve_export.check import check_repository
from radserve_export.rollback import rollback

if TYPE_CHECKING:
    from pathlib import Path

    from support.publications import Publish


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    return publisher(tmp_path)


def test_a_rollback_is_a_new_version_with_the_older_content(tmp_path: Path, publish: Publish) -> None:
    models = tmp_path / "models"
    publish(1)
    publish(2)
    done = rollback(models, "tiny")
    assert (done.version, done.restored, done.replaced) == (3, 1, 2)
    assert is_whole(models, {3: WIDTHS[1]}) == 3
    for file in ("tiny_pipeline/{}/model.onnx", "tiny/{}/labels.txt"):
        assert (models / file.format(3)).read_bytes() == (models / file.format(1)).read_bytes()
    manifest = read_manifest(models / "tiny/3/manifest.json")
    assert manifest.restores == 1
    assert manifest.parity == read_manifest(models / "tiny/1/manifest.json").parity
    assert served(models, "tiny_pipeline") == [2, 3]


def test_rolling_back_twice_goes_back_twice_and_an_export_goes_on(tmp_path: Path, publish: Publish) -> None:
    models = tmp_path / "models"
    for version in WIDTHS:
        publish(version)
    assert [rollback(models, "tiny").restored for _ in range(2)] == [2, 1]
    assert contract_of(models).version == 5
    before = contents(models)
    with pytest.raises(RepositoryError, match=r"5, which has the content of version 1, .* nothing older is kept"):
        rollback(models, "tiny")
    with pytest.raises(RepositoryError, match=r"version 5 .*, which is served, has the content of version 1 already"):
        rollback(models, "tiny", to=1)
    assert contents(models) == before
    assert rollback(models, "tiny", to=3).restored == 3
    assert publish(2) == 7
    assert is_whole(models, {7: WIDTHS[2]}) == 7


def test_an_export_of_what_was_restored_writes_nothing(tmp_path: Path, publish: Publish) -> None:
    publish(1)
    publish(2)
    rollback(tmp_path / "models", "tiny")
    before = contents(tmp_path / "models")
    assert publish(1) == 3
    assert contents(tmp_path / "models") == before


def test_a_rollback_across_another_signature_uses_a_step_of_its_own(tmp_path: Path, publish: Publish) -> None:
    models = tmp_path / "models"
    publish(1)
    publish(2, outputs=2, labels=[label("a"), label("b")])
    assert pins(models) == {"tiny_pipeline_2": 2}
    rollback(models, "tiny")
    assert pins(models) == {"tiny_pipeline_3": 3}
    assert [one.name for one in contract_of(models).labels] == ["a", "b", "c"]
    # The steps of the version before are as they were: it can be served until the new one is.
    assert served(models, "tiny_pipeline_2") == [2]
    assert check_repository(models) == []
    publish(3)
    assert pins(models) == {"tiny_pipeline_3": 4}
    assert served(models, "tiny_pipeline_3") == [3, 4]


def test_what_holds_no_model_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="has no public model tiny: name a folder that 'radserve export' wrote"):
        rollback(tmp_path, "tiny")


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("absent", None, "has no public model absent: it has tiny$"),
        ("tiny", 9, "has no version 9 of tiny to read: there are 1, 2"),
        ("tiny", 2, "version 2 of tiny is the one that is served"),
    ],
)
def test_what_cannot_be_restored_is_told(
    tmp_path: Path, publish: Publish, name: str, to: int | None, message: str
) -> None:
    publish(1)
    publish(2)
    before = contents(tmp_path / "models")
    with pytest.raises(RepositoryError, match=message):
        rollback(tmp_path / "models", name, to=to)
    assert contents(tmp_path / "models") == before


def test_an_older_version_that_was_changed_is_not_restored(tmp_path: Path, publish: Publish) -> None:
    publish(1)
    publish(2)
    path = tmp_path / "models/tiny_pipeline/1/model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RepositoryError, match="is not what was published as version 1"):
        rollback(tmp_path / "models", "tiny")
    assert contract_of(tmp_path / "models").version == 2


def test_where_files_cannot_be_linked_they_are_copied(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(1)
    publish(2)

    def refuse(*_arguments: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    rollback(tmp_path / "models", "tiny")
    assert verify_repository(tmp_path / "models") == []


def test_a_rollback_writes_the_present_schema(tmp_path: Path, publish: Publish) -> None:
    models = tmp_path / "models"
    publish(1)
    copy = models / "tiny/1/configs/tiny.pbtxt"
    text = copy.read_text()
    for later in ("evidence", "crop", "study", "pixels", "category", "reference"):
        entry = rf'\\"{later}\\":(?:null|\\"ignore\\")'
        text, found = re.subn(rf",{entry}|{entry},", "", text)
        assert found, later
    text = re.sub(r'schema_version\\":\d+', r'schema_version\\":1', text)
    copy.write_text(text)
    publish(2)
    rollback(models, "tiny")
    contract = contract_of(models)
    assert (contract.version, contract.schema_version) == (3, SCHEMA_VERSION)
