"""The scripts a user starts from run."""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import pytest
from support.validators import dciodvfy_errors

from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from radserve_server import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_answers_what_is_in_scope_and_refuses_the_rest() -> None:
    run = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, ROOT / "client" / "examples" / "demo.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "160"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in run.stdout.splitlines() if "│" in line]
    found = {row[0]: row[1:] for row in rows if len(row) == 5}
    for label in ("opacity", "pneumothorax", "atrial_fibrillation"):
        assert found[f"generated: {label}"][0].startswith(f"{label} positive, SCT" if label != "opacity" else label)
    refused = {what: row[0].partition(":")[0] for what, row in found.items() if "Error" in row[0]}
    assert refused == {
        "generated, then truncated": "DecodeError",
        "pydicom: CT slice": "OutOfScopeError",
        "pydicom: MR slice": "OutOfScopeError",
        "pydicom: segmentation": "OutOfScopeError",
        "pydicom: structured report": "OutOfScopeError",
        "pydicom: truncated MR slice": "DecodeError",
        "pydicom: radiograph of a spine": "OutOfScopeError",
        next(what for what in found if what.startswith("The lungs are clear")): "OutOfScopeError",
    }
    assert found["pydicom: 12-lead ECG"][2] == "1"
    assert "not for clinical use" in run.stdout


def test_what_the_demo_installs_holds_no_tensorflow() -> None:
    lock = (ROOT / "deploy" / "requirements" / "serve.txt").read_text(encoding="utf-8")
    names = set(re.findall(r"^([a-z0-9-]+)==", lock, flags=re.MULTILINE))
    assert {"nvidia-pytriton", "onnxruntime", "tritonclient"} <= names
    assert names.isdisjoint({"tensorflow", "tensorflow-cpu", "keras", "tf2onnx"})


def test_lock_files_are_hash_pinned_and_name_no_host() -> None:
    folders = (ROOT / "deploy" / "requirements", ROOT / "tests" / "bench" / "peers" / "requirements")
    for lock in [path for folder in folders for path in folder.glob("*.txt")]:
        text = lock.read_text(encoding="utf-8")
        pins = re.findall(r"^[a-z0-9._-]+==\S+.*?(?=^\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
        assert len(pins) == len(re.findall(r"^[^\s#]", text, flags=re.MULTILINE)) > 0, lock.name
        assert all("--hash=sha256:" in pin for pin in pins), lock.name
        assert not re.search(r"https?://|index-url|file://", text), lock.name


def _ran(script: str, *arguments: object, given: str | None = None) -> str:
    """What one of the scripts printed."""
    command = [sys.executable, str(ROOT / "client" / "examples" / script), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, input=given)  # noqa: S603 - our own scripts
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three radiographs, one of them urgent, a file that is none, and a CT slice beside the folder."""
    folder = tmp_path_factory.mktemp("examples") / "worklist"
    folder.mkdir()
    for sample, name in zip(generate("chest_xray", 3, seed=9, split=Split.TEST), ("a", "b_stat", "c"), strict=True):
        assert isinstance(sample.source, bytes)
        (folder / f"{name}.dcm").write_bytes(sample.source)
    (folder / "d.dcm").write_bytes(b"no file")
    (lesion,) = generate("ct_lesion", 1, seed=9, split=Split.TEST)
    assert isinstance(lesion.source, bytes)
    (folder.parent / "slice.dcm").write_bytes(lesion.source)
    return folder


def test_a_folder_is_answered_urgent_files_first(files: Path, reference_server: EmbeddedServer) -> None:
    answers = files.parent / "answers.csv"
    _ran("worklist_folder.py", reference_server.grpc_url, "chest_xray", files, answers)
    with answers.open(newline="", encoding="utf-8") as content:
        rows = list(csv.DictReader(content))
    assert [row["file"] for row in rows] == ["b_stat.dcm", "a.dcm", "c.dcm", "d.dcm"]
    assert [bool(row["label"]) for row in rows] == [True, True, True, False]
    assert rows[-1]["error"].startswith("DecodeError: ")


def test_an_asynchronous_service_answers_each_line(files: Path, reference_server: EmbeddedServer) -> None:
    paths = [str(path) for path in sorted(files.iterdir())]
    lines = _ran(
        "async_service.py", reference_server.grpc_url, "chest_xray", given="\n".join(paths) + "\n"
    ).splitlines()
    told = {answer["input"]: answer for answer in map(json.loads, lines)}
    assert sorted(told) == paths
    assert [path for path in paths if "error" in told[path]] == [str(files / "d.dcm")]


def test_an_answer_is_written_back(files: Path, tmp_path: Path, reference_server: EmbeddedServer) -> None:
    _ran("write_back.py", reference_server.grpc_url, files.parent / "slice.dcm", tmp_path)
    segmentation, report = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in ("segmentation", "report"))
    assert (segmentation.Modality, report.Modality, report.VerificationFlag) == ("SEG", "SR", "UNVERIFIED")
    assert segmentation.StudyInstanceUID == pydicom.dcmread(files.parent / "slice.dcm").StudyInstanceUID
    for name in ("segmentation", "report"):
        assert dciodvfy_errors(tmp_path / f"{name}.dcm") == []


def test_what_a_notebook_holds_runs(files: Path, reference_server: EmbeddedServer) -> None:
    printed = _ran("notebook.py", reference_server.grpc_url, files / "a.dcm")
    assert "<EvidenceMap of " in printed
    assert printed.endswith("True\n")


def test_a_series_is_made_of_one_slice(files: Path, tmp_path: Path) -> None:
    assert _ran("series.py", files.parent / "slice.dcm", tmp_path / "series").startswith("wrote 8 images")
    made = [pydicom.dcmread(path) for path in sorted((tmp_path / "series").iterdir())]
    assert len({image.SeriesInstanceUID for image in made}) == 1
    assert len({image.SOPInstanceUID for image in made}) == len(made) == 8
    heights = [image.ImagePositionPatient[2] for image in made]
    assert {after - before for before, after in itertools.pairwise(heights)} == {5}
