from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from radserve.errors import InferenceFailedError, ServerStartError, ServerUnavailableError, installing
from radserve_server import canary, control, doctor
from radserve_server.commands import doctor as command
from radserve_server.discover import Problem
from radserve_server.doctor import Status, examine

_URL = "127.0.0.1:1"


def _by_name(url: str | None = None) -> dict[str, doctor.Check]:
    return {check.name: check for check in examine(url)}


def test_a_whole_installation_is_ok() -> None:
    assert {check.status for check in examine()} == {Status.OK}


def test_a_missing_part_of_an_extra_is_absent_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "python-gdcm" else version(name))
    check = _by_name()["extra codecs"]
    assert check.status is Status.ABSENT
    assert "python-gdcm" in check.detail
    assert check.fix == installing("codecs")


def test_no_server_is_absent_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> None:
        msg = "no Triton server was found: install one"
        raise ServerStartError(msg)

    monkeypatch.setattr(doctor, "find_triton", find)
    check = _by_name()["embedded server"]
    assert (check.status, check.fix) == (Status.ABSENT, "install one")


def test_a_server_with_a_problem_is_broken_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "problems", lambda _triton: [Problem("numpy 2", "pip install 'numpy<2'")])
    check = _by_name()["embedded server"]
    assert (check.status, check.detail, check.fix) == (Status.BROKEN, "numpy 2", "pip install 'numpy<2'")


def test_a_server_that_does_not_answer_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(_self: object) -> str:
        msg = "refused"
        raise ServerUnavailableError(msg)

    monkeypatch.setattr(control.Control, "version", version)
    assert _by_name(_URL)[f"server {_URL}"].status is Status.BROKEN


def test_each_public_model_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_url: str, model: str, *, timeout_s: float) -> None:
        assert timeout_s > 0
        if model == "ill":
            msg = "no weights"
            raise InferenceFailedError(msg)

    monkeypatch.setattr(control.Control, "version", lambda _self: "2.51.0")
    monkeypatch.setattr(canary, "public_models", lambda _url, *, timeout_s: ["well", "ill"] if timeout_s else [])
    monkeypatch.setattr(canary, "check", check)
    checks = _by_name(_URL)
    assert "2.51.0" in checks[f"server {_URL}"].detail
    assert checks["model well"].status is Status.OK
    assert checks["model ill"].status is Status.BROKEN
    assert "no weights" in checks["model ill"].detail


def test_json_is_complete_and_the_exit_code_tells_of_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "problems", lambda _triton: [Problem("numpy 2", "fix")])
    with pytest.raises(typer.Exit) as exited:
        command(as_json=True)
    assert exited.value.exit_code == 1
    told = json.loads(capsys.readouterr().out)
    assert {"name": "embedded server", "status": "broken", "detail": "numpy 2", "fix": "fix"} in told


def test_people_get_a_line_per_check(capsys: pytest.CaptureFixture[str]) -> None:
    command()
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert len(lines) == len(examine())


def test_the_commands_are_quick_to_import() -> None:
    heavy = "{'numpy', 'grpc', 'tritonclient', 'rich.progress', 'radserve_server.embedded'}"
    code = f"import sys, radserve_server.commands; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"
