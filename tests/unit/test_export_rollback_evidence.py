"""After a rollback of a model alone, or of its evidence maps alone, the order is named that rolls back the other."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer
from support.exports import export_network, image_spec
from support.networks import evidence_network
from typer.testing import CliRunner

from radserve_export import release_commands
from radserve_export.check import check_repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Publish = Callable[..., int]

app = typer.Typer()
for command in (release_commands.publish, release_commands.rollback):
    app.command()(command)


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Export a model of the trained file of that number to ``tmp_path/models``."""

    def export(trained: int, **changes: Any) -> int:
        described = image_spec(network_output="logits", **changes)
        return export_network(tmp_path, evidence_network(trained=trained), described).version

    return export


def _rollback(*arguments: object) -> str:
    """What it says on stderr."""
    result = CliRunner().invoke(app, ["rollback", *map(str, arguments)])
    assert result.exit_code == 0
    return result.stderr


@pytest.mark.parametrize(("first", "second"), [("tiny", "tiny_evidence"), ("tiny_evidence", "tiny")])
def test_who_rolls_back_one_is_given_the_order_that_rolls_back_the_other(
    tmp_path: Path, publish: Publish, first: str, second: str
) -> None:
    for trained in (1, 2):
        publish(trained, evidence=True)
    where = ("--repository", tmp_path / "models")
    line = _rollback(first, *where)
    assert line.startswith("radserve: the evidence maps of tiny now explain another network than tiny has")
    assert line.count("\n") == 1
    order = shlex.split(line.partition(f"roll {second} back, too: radserve rollback ")[2])
    assert order == [second, "--to", "1", *map(str, where)]
    (found,) = check_repository(tmp_path / "models")
    assert (found.file, found.line) == ("tiny_evidence/config.pbtxt", _line_of_contract(tmp_path / "models"))
    assert "explain another network than tiny has" in found.message
    # The order does what it is for: afterwards neither model is behind.
    assert _rollback(*order) == ""
    assert check_repository(tmp_path / "models") == []


def _line_of_contract(models: Path) -> int:
    text = (models / "tiny_evidence/config.pbtxt").read_text()
    return text[: text.index("schema_version")].count("\n") + 1


def test_maps_without_a_version_that_fits_are_to_be_exported_again(tmp_path: Path, publish: Publish) -> None:
    publish(1)
    publish(2, evidence=True)
    line = _rollback("tiny", "--repository", tmp_path / "models")
    assert "export tiny again with evidence" in line


def test_a_model_without_maps_is_rolled_back_without_a_word(tmp_path: Path, publish: Publish) -> None:
    publish(1)
    publish(2)
    publish(2, name="tiny_evidence")  # which is no more than a name
    assert _rollback("tiny", "--repository", tmp_path / "models") == ""
