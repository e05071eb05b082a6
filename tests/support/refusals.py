"""``radserve export`` of a file that must be refused: what it says, and that it leaves nothing."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import typer
from support.exports import image_spec, write_spec
from typer.testing import CliRunner

from radserve_export import commands

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_app = typer.Typer()
_app.command()(commands.export)


def refused(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """Export a model into a repository that has something in it already.

    Args:
        folder: Where the model is, and all else will be.
        model: The model.
        monkeypatch: Restores the folder of temporary files.
        options: Of the command.

    Returns:
        The one line that was said.
    """
    spec = write_spec(folder, image_spec(model=model.name))
    repository, temporary = folder / "models", folder / "tmp"
    repository.mkdir()
    (repository / "labels.txt").write_text("of another model")
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = _contents(folder)
    result = CliRunner().invoke(_app, [str(spec), "--repository", str(repository), *options])
    assert (result.exit_code, result.stdout) == (1, "")
    assert _contents(folder) == before
    line, end, rest = result.stderr.partition("\n")
    assert (end, rest) == ("\n", "")
    assert line.isprintable()
    return line


def _contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
