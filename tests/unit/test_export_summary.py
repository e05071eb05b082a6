"""The repository's README says what its manifests say, and nothing of what was not measured."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from radserve.contracts.manifest import MANIFEST, Manifest, write_manifest
from radserve_export.summary import embed, summarise

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT = {"max_abs": 2e-7, "atol": 1e-5, "rtol": 1e-4}
PARITY = {"batch_sizes": [1, 2], "lengths": [1, 7], "real_inputs": 16, "outputs": {"network/Y": OUTPUT}}
MEASURED = {"metric": "dice", "dice": 0.9, "n": 200, "skew": {"max": 1e-6, "n": 200}}


def write(repository: Path, name: str, *, parity: dict[str, Any], evaluation: dict[str, Any] | None = None) -> None:
    (repository / name / "1").mkdir(parents=True)
    manifest = Manifest(
        name=name,
        version=1,
        models=(name, f"{name}_network"),
        files={},
        source_sha256="0" * 64,
        tools={},
        parity=parity,
        evaluation=evaluation,
    )
    write_manifest(manifest, repository / name / "1" / MANIFEST)


def table(repository: Path) -> list[dict[str, str]]:
    """Its rows, cells by column."""
    lines = [line for line in summarise(repository).decode().splitlines() if line.startswith("|")]
    names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_what_the_gate_saw_stands_beside_what_it_measured(tmp_path: Path) -> None:
    write(tmp_path, "a", parity=PARITY, evaluation=MEASURED)
    (row,) = table(tmp_path)
    assert row == {
        "model": "`a`",
        "version": "1",
        "accuracy": "0.900 (dice)",
        "samples": "200",
        "largest skew": "1.0e-06",
        "parity": "2.0e-07",
        "compared on": "random batches of 1, 2; lengths 1, 7; real inputs: 16",
        "steps": "`a_network`",
    }


def test_inputs_that_the_gate_did_not_see_are_not_named(tmp_path: Path) -> None:
    write(tmp_path, "a", parity=PARITY | {"lengths": [], "real_inputs": 0})
    assert table(tmp_path)[0]["compared on"] == "random batches of 1, 2"


def test_what_no_model_was_measured_on_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a", parity=PARITY)
    assert list(table(tmp_path)[0]) == ["model", "version", "parity", "compared on", "steps"]


def test_a_model_that_was_not_measured_has_empty_cells_beside_others(tmp_path: Path) -> None:
    write(tmp_path, "a", parity=PARITY, evaluation=MEASURED)
    write(tmp_path, "b", parity={})
    row = table(tmp_path)[1]
    assert {name for name, cell in row.items() if not cell} == {
        "accuracy",
        "samples",
        "largest skew",
        "parity",
        "compared on",
    }


def test_the_command_renews_the_repositorys_readme_and_the_tables_of_another_text(tmp_path: Path) -> None:
    write(tmp_path / "models", "a", parity=PARITY)
    text = "before\n<!-- results -->\nold\n<!-- /results -->\nafter\n"
    (tmp_path / "README.md").write_text(text)
    command = [sys.executable, "-m", "radserve_export.summary", "README.md", "models"]
    subprocess.run(command, cwd=tmp_path, check=True)  # noqa: S603 - our own module
    summary = summarise(tmp_path / "models")
    assert (tmp_path / "models/README.md").read_bytes() == summary
    assert (tmp_path / "README.md").read_text() == embed(summary.decode(), text)
    assert "| `a` | 1 | 2.0e-07 |" in (tmp_path / "README.md").read_text()
