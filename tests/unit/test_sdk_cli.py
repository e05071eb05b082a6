"""Finding sub-commands, and failing in one line."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

from radserve import cli
from radserve.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable


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
        ("module", "pip install 'radserve[all]'"),
        ("extra", "pip install 'radserve[export]'"),
        ("broken", "SyntaxError"),
    ],
)
def test_a_command_that_cannot_run_is_one_line(command: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, *(("--option", "value") if command != "refuse" else ())) == 1
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


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"radserve {metadata.version('radserve')}\n"


def test_without_typer_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    assert run("greet") == 1
    assert "pip install 'radserve[cli]'" in capsys.readouterr().err
