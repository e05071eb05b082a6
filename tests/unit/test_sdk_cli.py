"""Finding sub-commands, and failing in one line."""

from __future__ import annotations

import errno
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support.sdk_contracts import IMAGE, TEXT, contract

from radserve import cli
from radserve.cli._inputs import Inputs
from radserve.cli.models import _at_once
from radserve.contracts import EveryImage
from radserve.errors import InputError, MissingExtraError, installing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve.contracts import ImageInput, TextInput


class Point:
    """An entry point."""

    def __init__(self, name: str, command: Callable[..., Any]) -> None:
        self.name = name
        self._command = command

    def load(self) -> Callable[..., Any]:
        command: Callable[..., Any] = self._command()
        return command


def greet(name: str = "world") -> None:
    """Greet somebody."""
    print(f"hello {name}")  # noqa: T201 - seen by the test


def refuse() -> None:
    """Refuse."""
    msg = "no\nthank you"
    raise InputError(msg)


def interrupt() -> None:
    """Interrupt."""
    raise KeyboardInterrupt


def fill() -> None:
    """Write to a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device", "out.jsonl")


def without_a_module() -> Callable[..., Any]:
    msg = "No module named 'tensorflow'"
    raise ModuleNotFoundError(msg, name="tensorflow")


def without_an_extra() -> Callable[..., Any]:
    extra = "export"
    raise MissingExtraError(extra, "exporting")


def broken() -> Callable[..., Any]:
    raise SyntaxError


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        Point("greet", lambda: greet),
        Point("refuse", lambda: refuse),
        Point("fill", lambda: fill),
        Point("interrupt", lambda: interrupt),
        Point("module", without_a_module),
        Point("extra", without_an_extra),
        Point("broken", broken),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "radserve.commands" else [])


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return int(caught.value.code or 0)


def test_a_command_of_another_distribution_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("greet", "--name", "you") == 0
    assert capsys.readouterr().out == "hello you\n"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("refuse", "radserve: no thank you\n"),
        ("fill", "radserve: No space left on device: out.jsonl\n"),
        ("module", installing("all")),
        ("extra", installing("export")),
        ("broken", "SyntaxError"),
    ],
)
def test_a_command_that_cannot_run_is_one_line(command: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, *(("--option", "value") if command not in ("refuse", "fill") else ())) == 1
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("interrupt") == 130
    assert capsys.readouterr().err == "radserve: interrupted\n"


def test_help_lists_all_commands_even_the_broken_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    told = capsys.readouterr().out
    assert "Greet somebody" in told
    assert "Not available" in told
    assert installing("export") in " ".join(told.replace("│", " ").split())


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"radserve {metadata.version('radserve')}\n"


def test_without_typer_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    assert run("greet") == 1
    assert installing("cli") in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2", "b/1", "b/DICOMDIR", "b/.x", "a/3.dcm", "c.csv", ".hidden/4", "d/5.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "told"),
    [(IMAGE, " (one file)"), (msgspec.structs.replace(IMAGE, study=EveryImage()), " (a study)"), (TEXT, "")],
)
def test_the_list_says_whether_an_answer_is_about_a_file_or_a_study(given: ImageInput | TextInput, told: str) -> None:
    assert _at_once(contract(given)) == told


def test_where_a_model_answers_studies_each_folder_that_has_files_is_one(folder: Path) -> None:
    found = Inputs.of([str(folder)], [], contract(msgspec.structs.replace(IMAGE, study=EveryImage())))
    given = {item.name: item.source() for item in found.items}
    assert given == {
        str(folder / "a"): [str(folder / "a/3.dcm")],
        str(folder / "b"): [str(folder / "b/1"), str(folder / "b/2")],
        str(folder / "d"): [str(folder / "d/5.txt")],
    }
    assert found.notice() == "passed over in folders: 1 .csv, 1 DICOMDIR, 2 hidden"
    keys = [item.key() for item in found.items]
    (folder / "b/2").write_text("changed")
    assert [item.key() == key for item, key in zip(found.items, keys, strict=True)] == [True, False, True]


def test_inputs_have_keys_as_far_as_they_can_be_found(folder: Path) -> None:
    found = Inputs.of([str(folder), "/nowhere", str(folder / "b")], ["calm", "urgent"], contract(TEXT))
    assert [item.name for item in found.items][-4:] == ["/nowhere", str(folder / "b"), "text 1", "text 2"]
    keys = [item.key() for item in found.items]
    assert [key is None for key in keys] == [False, True, True, False, False]
    assert len(set(keys)) == 4
