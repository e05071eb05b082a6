"""Disks that are full, for real: a clear error, exit 1, what was there intact, and nothing half-written beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support.classifiers import text_contract, write_classifier
from support.commands import RADSERVE
from support.disks import Disk, small_disk
from support.exports import contents, dense_network, image_spec, write_spec
from support.figures import tell
from support.loads import report_of
from support.repositories import write_add_one

from radserve import Client
from radserve.cli._label_maps import write_picture
from radserve.cli._loadtest_runs import Files
from radserve.contracts.manifest import verify_repository
from radserve.errors import InputError, RepositoryError
from radserve_export import pipeline
from radserve_export.check import check_repository
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from radserve_export.network import Network

_PAGE = 4096
_FULL = "No space left on device"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 2**24) as small:
        yield small


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_classifier(repository, text_contract())
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


def _radserve(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - ourselves
        [*RADSERVE, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _all(disk: Disk) -> dict[str, bytes]:
    disk.make_room()
    return contents(disk.path)


@pytest.mark.parametrize("others", [0, pytest.param(120, marks=pytest.mark.full)])
def test_wherever_the_disk_ends_while_publishing_the_version_before_stays(
    disk: Disk, tmp_path: Path, use_network: Callable[[Network], None], others: int
) -> None:
    """Beside many others, the summary takes more than what a replaced configuration leaves."""
    models = disk.path / "models"
    use_network(dense_network())
    for number in range(others):
        pipeline.export(write_spec(tmp_path, image_spec(name=f"other_{number}")), models)
    spec = write_spec(tmp_path, image_spec())
    pipeline.export(spec, models)
    use_network(dense_network(seed=1))
    before, refused = _all(disk), 0
    for pages in range(200):
        disk.fill(leave=pages * _PAGE)
        try:
            pipeline.export(spec, models)
        except RepositoryError as error:
            assert _FULL in str(error)  # noqa: PT017 - the last round raises nothing
            assert str(models.parent) in str(error)  # noqa: PT017
            refused += 1
        else:
            break
        assert _all(disk) == before
        assert {path.name for path in disk.path.iterdir()} == {"models"}
    tell(refused=refused)
    assert refused > 5
    assert verify_repository(models) == []
    assert check_repository(models) == []
    assert (models / "tiny" / "2").is_dir()


def test_the_version_before_is_served_on_while_the_disk_is_full(
    disk: Disk, tmp_path: Path, use_network: Callable[[Network], None]
) -> None:
    models, spec = disk.path / "models", write_spec(tmp_path, image_spec())
    use_network(dense_network())
    pipeline.export(spec, models)
    with EmbeddedServer(models, canary_period_s=0.2) as served, Client(served.grpc_url) as client:
        model = client.model("tiny")
        x = {model.contract.inputs[0].name: np.zeros((1, *model.contract.inputs[0].dims), np.uint8)}
        first = model.infer(x)
        use_network(dense_network(seed=1))
        disk.fill(leave=4 * _PAGE)
        with pytest.raises(RepositoryError, match=_FULL):
            pipeline.export(spec, models)
        again = model.infer(x)
        assert all((again[name] == value).all() for name, value in first.items())
        assert client.health("tiny")
        os.kill(served.pid, signal.SIGKILL)  # started anew on a full disk, it serves the same
        client.wait_until_ready(60)


def test_a_journal_on_a_full_disk_is_continued_when_there_is_room(
    disk: Disk, server: EmbeddedServer, tmp_path: Path
) -> None:
    out, count = disk.path / "results.jsonl", 40
    for number in range(count):
        (tmp_path / f"{number:02}.txt").write_text(f"calm {number}")
    reports = sorted(tmp_path.glob("*.txt"))
    arguments = ["predict", "triage", *reports, "--url", server.grpc_url, "--out", out, "--resume"]
    disk.fill(leave=2 * _PAGE)
    done = _radserve(*arguments)
    assert done.returncode == 1
    assert (
        f"radserve: cannot write to {out}: {_FULL}; all answers before are in it: make room, then resume" in done.stderr
    )
    assert "left: run again with --resume" in done.stdout
    written = out.read_text().splitlines(keepends=True)
    assert 0 < len(written) < count
    assert all(line.endswith("}\n") and json.loads(line) for line in written)
    disk.make_room()
    assert _radserve(*arguments).returncode == 0
    lines = out.read_text().splitlines(keepends=True)
    assert lines[: len(written)] == written
    assert [json.loads(line)["input"] for line in lines] == list(map(str, reports))


@pytest.mark.parametrize("form", Files._fields)
def test_a_load_tests_report_is_written_whole_or_not_at_all(disk: Disk, form: str) -> None:
    path = disk.path / f"report.{form}"
    files = Files(**dict.fromkeys(Files._fields) | {form: path})
    path.write_text("of yesterday")
    disk.fill()
    with pytest.raises(InputError, match=f"cannot write to {path}: {_FULL}"):
        files.write(report_of())
    assert _all(disk) == {path.name: b"of yesterday"}
    files.write(report_of())
    assert len(path.read_bytes()) > 100


def test_a_load_test_whose_report_has_no_room_fails_in_one_line(disk: Disk, server: EmbeddedServer) -> None:
    disk.fill()
    report = disk.path / "report.json"
    done = _radserve("loadtest", "triage", "--url", server.grpc_url, "--duration", "0.3", "--json", report)
    assert (done.returncode, done.stderr) == (1, f"radserve: cannot write to {report}: {_FULL}\n")
    assert _all(disk) == {}


@pytest.mark.parametrize("force", [False, True], ids=["new", "overwritten"])
def test_a_label_map_is_written_whole_or_not_at_all(disk: Disk, *, force: bool) -> None:
    path, label_map = disk.path / "a.png", np.arange(2**14, dtype=np.uint8).reshape(2**7, 2**7)
    before = {path.name: b"of yesterday"} if force else {}
    for name, content in before.items():
        (disk.path / name).write_bytes(content)
    disk.fill()
    with pytest.raises(InputError, match=_FULL):
        write_picture(label_map, path, force=force)
    assert _all(disk) == before
    write_picture(label_map, path, force=force)
    with Image.open(path) as written:
        assert (np.asarray(written) == label_map).all()


def test_without_room_for_its_own_files_a_server_is_not_started(disk: Disk, tmp_path: Path) -> None:
    write_add_one(tmp_path / "models")
    disk.fill(leave=2 * _PAGE)  # with less, Python would take another folder
    ports = ("--grpc-port", 0, "--http-port", 0, "--metrics-port", 0)
    done = _radserve("serve", "--repository", tmp_path / "models", *ports, TMPDIR=str(disk.path))
    assert done.returncode == 1
    assert "cannot be prepared" in done.stderr
    assert _FULL in done.stderr
    assert done.stderr.endswith(": make room, or set TMPDIR to another folder\n")
    assert _all(disk) == {}
