"""What a reader sees while a version is published, whatever happens to the exporter."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.exports import contents, dense_network, export_network, label, write_spec
from support.publications import WIDTHS, contract_of, described, is_whole, publisher

from radserve.contracts.manifest import verify_repository
from radserve.errors import RepositoryError
from radserve_export import pipeline, publication
from radserve_export.check import check_repository
from radserve_export.repository import locked
from radserve_export.rollback import rollback

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.publications import Publish

    from radserve_export.network import Network

TESTS = Path(__file__).parent.parent
STEPS = ["tiny_preprocess", "tiny_network", "tiny_postprocess"]


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    return publisher(tmp_path)


_KILLED_AT_EACH_OPERATION = """
import os, shutil, signal, sys
from contextlib import nullcontext
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.exports import dense_network
from radserve_export import pipeline, rollback

pipeline.converted_network = lambda *_args, **_options: nullcontext(dense_network(seed=2))
spec, models, copies, what = Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5]
for fatal in range(1, 100):
    repository = copies / str(fatal) / "models"
    repository.parent.mkdir(parents=True)
    if models.exists():
        shutil.copytree(models, repository)
    child = os.fork()
    if not child:
        count = 0
        def counted(original):
            def call(*arguments, **options):
                global count
                count += 1
                if count == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **options)
            return call
        for owner, names in ((Path, ("rename", "replace", "unlink", "mkdir")), (os, ("fsync", "link"))):
            for name in names:
                setattr(owner, name, counted(getattr(owner, name)))
        if what == "export":
            pipeline.export(spec, repository)
        else:
            rollback.rollback(repository, "tiny")
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(fatal)
        break
"""


def _kill_at_each_operation(folder: Path, spec: Path, what: str) -> list[Path]:
    """A copy of ``folder/models`` for each point at which the exporter was killed; the last one got through."""
    arguments = map(str, (TESTS, spec, folder / "models", folder / "killed", what))
    command = [sys.executable, "-c", _KILLED_AT_EACH_OPERATION, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    return [folder / "killed" / str(point) / "models" for point in range(1, int(done.stdout) + 1)]


@pytest.mark.parametrize("what", [pytest.param("export", marks=pytest.mark.full), "rollback"])
def test_a_killed_exporter_leaves_the_old_version_or_the_new_one(
    tmp_path: Path, publish: Publish, use_network: Callable[[Network], None], what: str
) -> None:
    """The repository verifies, and checks without findings, at every point; the next exporter makes it clean."""
    windows = {1: WIDTHS[1], 2: WIDTHS[2]}
    publish(1, serving={"fuse": False})
    if what == "rollback":
        publish(2, serving={"fuse": False})
        windows[3] = WIDTHS[1]
    spec = write_spec(tmp_path, described(2, serving={"fuse": False}))
    copies = _kill_at_each_operation(tmp_path, spec, what)
    seen = [is_whole(models, windows) for models in copies]
    old, new = max(windows) - 1, max(windows)
    assert seen == sorted(seen)
    assert (seen.count(old), seen.count(new)) > (15, 3)
    final = contents(copies[-1])
    use_network(dense_network(seed=2))
    for models, version in zip(copies, seen, strict=True):
        with locked(models):
            pass
        assert [path.name for path in models.parent.iterdir()] == ["models"]
        assert contract_of(models).version == version
        assert not (models / ".publishing.json").exists()
        if what == "export":
            pipeline.export(spec, models)
        elif version == old:
            rollback(models, "tiny")
        assert contents(models) == final


@pytest.mark.full
def test_a_first_export_that_is_killed_does_not_keep_other_models_from_being_served(
    tmp_path: Path, publish: Publish
) -> None:
    publish(1, name="other")
    spec = write_spec(tmp_path, described(2, serving={"fuse": False}))
    for models in _kill_at_each_operation(tmp_path, spec, "export"):
        assert verify_repository(models) == []
        assert check_repository(models) == []
        if (models / "tiny").exists():
            assert is_whole(models, {1: WIDTHS[2]}) == 1
        # Another model's export comes first, and clears up.
        export_network(models.parent, dense_network(seed=2), described(2, name="third"))
        assert (models / "tiny").exists() == (models / "tiny_network").exists()
        assert not (models / ".publishing.json").exists()


def test_only_the_newest_versions_are_kept(tmp_path: Path, publish: Publish) -> None:
    models = tmp_path / "models"
    publish(1, outputs=2, labels=[label("a"), label("b")])
    for version in (2, 3, 1, 2):
        publish(version, serving={"versions_kept": 3})
        assert verify_repository(models) == []
        assert check_repository(models) == []
    kept = {f"{path.parent.name}/{path.name}" for path in models.glob("*/*") if path.is_dir()}
    assert kept == {f"{name}/{version}" for name in ("tiny", "tiny_pipeline_2") for version in (3, 4, 5)}
    assert rollback(models, "tiny").restored == 4


def test_an_old_version_with_a_malformed_manifest_stays_and_does_not_stop_an_export(
    tmp_path: Path, publish: Publish
) -> None:
    models = tmp_path / "models"
    for version in (1, 2, 3):
        publish(version)
    (models / "tiny/1/manifest.json").write_text("{}")
    assert publish(1, serving={"versions_kept": 2}) == 4
    kept = {f"{path.parent.name}/{path.name}" for path in models.glob("*/*") if path.is_dir()}
    assert kept == {f"{name}/{version}" for name in ("tiny", "tiny_pipeline") for version in (1, 3, 4)}
    assert all("tiny/1/manifest.json is malformed" in line for line in verify_repository(models))


@pytest.mark.parametrize("fuse", [True, False])
def test_a_repository_verifies_at_every_moment_of_the_removal_of_old_versions(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch, *, fuse: bool
) -> None:
    models = tmp_path / "models"
    publish(1, serving={"fuse": False})
    publish(2, serving={"fuse": fuse})
    removed: list[list[str]] = []

    def put_away(path: Path, place: Path, original: Any = publication._bin) -> None:
        original(path, place)
        removed.append(verify_repository(models))

    monkeypatch.setattr(publication, "_bin", put_away)
    publish(3, serving={"fuse": fuse, "versions_kept": 2})
    assert len(removed) >= len(STEPS)
    assert not any(removed)


def test_a_folder_that_belongs_to_nothing_is_not_overwritten(tmp_path: Path, publish: Publish) -> None:
    stray = tmp_path / "models/tiny_pipeline/1"
    stray.mkdir(parents=True)
    with pytest.raises(RepositoryError, match="tiny_pipeline is no part of tiny: delete it"):
        publish(1)
    assert [path.name for path in (tmp_path / "models").rglob("*")] == ["tiny_pipeline", "1"]


def test_a_repository_without_copies_of_its_configurations_is_not_written_to(tmp_path: Path, publish: Publish) -> None:
    models = tmp_path / "models"
    publish(1)
    shutil.rmtree(models / "tiny/1/configs")
    with pytest.raises(RepositoryError, match="has no version 1 of tiny to read: there are none"):
        publish(2)
    assert contract_of(models).version == 1


def _of_an_older_layout(models: Path) -> dict[str, bytes]:
    """Take away what older exporters did not write."""
    shutil.rmtree(models / "tiny/1/configs")
    manifest = json.loads((models / "tiny/1/manifest.json").read_text())
    manifest["files"] = {name: digest for name, digest in manifest["files"].items() if "/configs/" not in name}
    (models / "tiny/1/manifest.json").write_text(json.dumps(manifest))
    return contents(models)


@pytest.mark.parametrize("again", [lambda publish, _: publish(2), lambda _, models: rollback(models, "tiny", to=1)])
def test_a_repository_of_an_older_layout_is_not_written_to_and_the_next_step_is_told(
    tmp_path: Path, publish: Publish, again: Callable[[Publish, Path], object]
) -> None:
    models = tmp_path / "models"
    publish(1)
    before = _of_an_older_layout(models)
    with pytest.raises(RepositoryError, match="published by an older radserve") as caught:
        again(publish, models)
    assert contents(models) == before
    (command,) = re.findall("`(.*)`", str(caught.value))
    subprocess.run(shlex.split(command), check=True)  # noqa: S603 - what the message tells to run
    assert publish(2) == 1
    assert verify_repository(models) == []


def test_a_malformed_note_of_a_publication_stops_verification_and_export(tmp_path: Path, publish: Publish) -> None:
    models = tmp_path / "models"
    publish(1)
    (models / ".publishing.json").write_text(json.dumps({"name": "tiny"}))
    assert any("publishing.json" in line for line in verify_repository(models))
    with pytest.raises(RepositoryError, match="is malformed"):
        publish(2)


def test_room_is_kept_for_all_that_going_back_writes(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of labels make a configuration larger than what is kept in any case."""
    publish(1)
    models, kept = tmp_path / "models", []
    sizes = [path.stat().st_size for path in (models / "README.md", models / "tiny" / "config.pbtxt")]
    monkeypatch.setattr(publication, "_SPARE_BYTES", 1)
    monkeypatch.setattr(os, "posix_fallocate", lambda _file, _start, size: kept.append(size))
    publish(2)
    assert kept[0] > sum(sizes)
