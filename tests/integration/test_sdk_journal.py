"""A run over an archive that is killed again and again ends as one that was left in peace."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from support.classifiers import image_contract, text_contract, write_classifier
from support.commands import RADSERVE
from support.datasets import TEST_FILES

from radserve_export.synthetic import Split, generate
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = 240
REFUSED = 12
# Of two runs these differ, and nothing else.
_OF_ONE_RUN = {"request_id", "created"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_classifier(repository, image_contract())
    write_classifier(repository, text_contract())
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of different brightness in folders, some of which are to be refused."""
    folder = tmp_path_factory.mktemp("archive")
    dataset = pydicom.dcmread(TEST_FILES / "CT_small.dcm")
    pixels = dataset.pixel_array.copy()
    for number in range(FILES):
        place = folder / f"study {number % 7}" / f"王 {number:04}.dcm"
        place.parent.mkdir(exist_ok=True)
        dataset.PixelData = (pixels + number).tobytes()
        dataset.Modality = "MR" if number % (FILES // REFUSED) == 5 else "CT"
        dataset.save_as(place)
    return folder


def command(server: EmbeddedServer, archive: Path, out: Path, *more: str) -> list[str]:
    return [*RADSERVE, "predict", "brightness", str(archive), "--url", server.grpc_url, "--out", str(out), *more]


def run(server: EmbeddedServer, archive: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - ourselves
        command(server, archive, out, *more), capture_output=True, text=True, check=False, timeout=120
    )


def lines(out: Path) -> list[dict[str, Any]]:
    """What a file says, without what differs from run to run."""
    told = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in _OF_ONE_RUN} for line in told]


@pytest.fixture(scope="module")
def undisturbed(server: EmbeddedServer, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "results.jsonl"
    done = run(server, archive, out)
    assert done.returncode == 1, "some are refused"
    assert done.stdout == f"{out}: {FILES - REFUSED} answered, {REFUSED} refused\n"
    return out


def kill_when(process: subprocess.Popen[bytes], out: Path, size: int) -> None:
    """Kill a run as soon as its file has so many bytes, or let it end."""
    while process.poll() is None and (not out.exists() or out.stat().st_size < size):
        time.sleep(0)
    process.kill()
    process.wait()


def kill_and_go_on(server: EmbeddedServer, archive: Path, out: Path, undisturbed: Path, kills: int) -> None:
    whole = undisturbed.stat().st_size
    # Different runs use different seeds: a failure names its own.
    seed = time.time_ns()
    chance = random.Random(seed)  # noqa: S311 - moments
    for size in sorted(chance.randrange(whole) for _ in range(kills)):
        process = subprocess.Popen(command(server, archive, out, "--resume"), stdout=subprocess.DEVNULL)  # noqa: S603 - ourselves
        kill_when(process, out, size)
    done = run(server, archive, out, "--resume")
    assert done.returncode == 1, (seed, done.stderr)
    found = lines(out)
    assert len({line["key"] for line in found}) == len(found) == FILES, seed
    assert sorted(found, key=str) == sorted(lines(undisturbed), key=str), seed


def test_every_input_has_one_line_in_order(archive: Path, undisturbed: Path) -> None:
    found = lines(undisturbed)
    assert [line["input"] for line in found] == sorted(map(str, archive.rglob("*.dcm")))
    assert sum("error" in line for line in found) == REFUSED
    assert len({line["findings"][0]["probability"] for line in found if "findings" in line}) > FILES / 2


def test_killed_at_random_moments_the_next_run_does_the_rest(
    server: EmbeddedServer, archive: Path, undisturbed: Path, tmp_path: Path
) -> None:
    kill_and_go_on(server, archive, tmp_path / "results.jsonl", undisturbed, kills=4)


@pytest.mark.full
def test_killed_fifty_times_the_next_run_does_the_rest(
    server: EmbeddedServer, archive: Path, undisturbed: Path, tmp_path: Path
) -> None:
    kill_and_go_on(server, archive, tmp_path / "results.jsonl", undisturbed, kills=50)


def test_a_run_that_is_done_asks_nothing(
    server: EmbeddedServer, archive: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    out.write_bytes(undisturbed.read_bytes())
    done = run(server, archive, out, "--resume")
    assert (done.returncode, done.stderr) == (1, "")
    assert out.read_bytes() == undisturbed.read_bytes()
    assert done.stdout == f"{out}: 0 asked, all done before: {FILES - REFUSED} answered, {REFUSED} refused\n"


def test_two_runs_on_one_file_are_refused_and_the_first_goes_on(
    server: EmbeddedServer, archive: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    first = subprocess.Popen(command(server, archive, out), stdout=subprocess.DEVNULL)  # noqa: S603 - ourselves
    while not (out.exists() and out.stat().st_size):
        time.sleep(0)
    first.send_signal(signal.SIGSTOP)  # still there, and in the middle
    second = run(server, archive, out, "--resume")
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 1
    assert second.returncode == 1
    assert second.stderr == f"radserve: another run writes to {out}: wait for it, or name another file\n"
    assert lines(out) == lines(undisturbed)


def test_a_label_map_that_a_killed_run_left_without_a_line_is_written_again(
    reference_server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    for number, sample in enumerate(generate("ct_lesion", 2, seed=5, split=Split.TEST)):
        assert isinstance(sample.source, bytes)
        (tmp_path / "study" / f"{number}.dcm").write_bytes(sample.source)
    out, maps = tmp_path / "results.jsonl", tmp_path / "maps"
    asked = [*RADSERVE, "predict", "ct_lesion", str(tmp_path / "study"), "--url", reference_server.grpc_url]
    asked += ["--out", str(out), "--output", str(maps), "--resume"]
    assert subprocess.run(asked, check=False, capture_output=True).returncode == 0  # noqa: S603 - ourselves
    first, second = out.read_bytes().splitlines(keepends=True)
    whole = {path.name: path.read_bytes() for path in maps.iterdir()}
    out.write_bytes(first)
    (maps / "1.png").write_bytes(b"half of it")
    assert subprocess.run(asked, check=False, capture_output=True).returncode == 0  # noqa: S603 - ourselves
    assert {path.name: path.read_bytes() for path in maps.iterdir()} == whole
    assert [json.loads(line)["label_map"] for line in out.read_text().splitlines()] == [
        str(maps / "0.png"),
        str(maps / "1.png"),
    ]
    assert json.loads(second)["key"] == json.loads(out.read_bytes().splitlines()[1])["key"]
