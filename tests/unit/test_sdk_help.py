"""What the commands say of themselves."""

from __future__ import annotations

import re
import shlex
from importlib import metadata

import pytest

from radserve.cli import main
from radserve.options._load import SECRETS, SETTINGS

COMMANDS = sorted(point.name for point in metadata.entry_points(group="radserve.commands"))
OF_SERVERS = ("doctor", "health", "loadtest", "models", "predict")
EXIT_STATUS = "Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which nothing is folded."""
    monkeypatch.setenv("COLUMNS", "1000")


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert not caught.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_there_is_an_example_and_its_options_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = help_of(capsys, command)
    found = re.search(rf"Example: (radserve {command}\b.*)", told)
    assert found
    options = [word for word in shlex.split(found[1]) if word.startswith("--")]
    assert all(f"{option} " in told.replace(found[0], "") for option in options)


@pytest.mark.parametrize("command", OF_SERVERS)
def test_all_variables_are_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = help_of(capsys, command)
    named = re.findall(r"RADSERVE_[A-Z_]+\b", told)
    expected = {f"RADSERVE_{name.upper()}" for name in (*SETTINGS, *SECRETS, "config")}
    assert sorted(named) == sorted(expected)
    assert EXIT_STATUS in told


def test_the_exit_status_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert EXIT_STATUS in help_of(capsys)
