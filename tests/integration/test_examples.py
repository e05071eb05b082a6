"""The scripts a user starts from run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
    for lock in (ROOT / "deploy" / "requirements").glob("*.txt"):
        text = lock.read_text(encoding="utf-8")
        pins = re.findall(r"^[a-z0-9._-]+==\S+.*?(?=^\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
        assert len(pins) > 10
        assert all("--hash=sha256:" in pin for pin in pins), lock.name
        assert not re.search(r"https?://|index-url|file://", text), lock.name
