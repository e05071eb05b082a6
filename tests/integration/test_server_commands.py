"""``radserve serve`` as a user runs it: signals at any moment, and what is printed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.commands import RADSERVE, read_until
from support.inference import add_one
from support.leftovers import leftovers, wait_until_gone
from support.repositories import write_add_one, write_config, write_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.installations import CopyTriton

    Serve = Callable[..., subprocess.Popen[str]]

_SERVE = [*RADSERVE, "serve"]
_FREE_PORTS = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
_EXIT_S = 30
_SLOW_TO_LOAD = """
import time
class TritonPythonModel:
    def initialize(self, args):
        time.sleep(60)
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A function that runs ``radserve serve`` on a repository; both outputs in one stream."""
    running: list[subprocess.Popen[str]] = []

    def run(repository: Path, *options: str, ports: list[str] = _FREE_PORTS) -> subprocess.Popen[str]:
        command = [*_SERVE, "--repository", str(repository), *ports, *options]
        running.append(
            subprocess.Popen(  # noqa: S603 - ourselves
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
            )
        )
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_add_one(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_serving_cleanly(number: signal.Signals, repository: Path, serve: Serve) -> None:
    process = serve(repository)
    seen = read_until(process, "ready")
    found = re.search(r"gRPC +(\S+)", seen)
    assert found is not None
    assert add_one(found.group(1)) == [1, 1, 1, 1]
    process.send_signal(number)
    rest, _ = process.communicate(timeout=_EXIT_S)
    assert process.returncode == 0
    assert rest == "stopped\n"
    assert leftovers(process.pid) == []


@pytest.mark.parametrize(
    "moment",
    ["The embedded server is for", "cuda_memory_manager", "TRITONBACKEND_ModelInstanceInitialize"],
    ids=["before the server", "server starting", "model loading"],
)
def test_ctrl_c_during_the_start_leaves_nothing(moment: str, tmp_path: Path, serve: Serve) -> None:
    write_python(tmp_path / "repository", "slow", _SLOW_TO_LOAD)
    process = serve(tmp_path / "repository", "--verbose")
    read_until(process, moment)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=_EXIT_S)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "interrupted before the server was ready; nothing is left running"
    assert leftovers(process.pid) == []


def test_the_cores_and_what_an_instance_gets_of_them_are_told(repository: Path, serve: Serve) -> None:
    process = serve(repository, "--threads", "3")
    assert re.search(r"^cores +\d+, 3 threads an instance$", read_until(process, "ready after"), re.MULTILINE)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_EXIT_S)


def test_a_second_ctrl_c_does_not_wait_for_requests(repository: Path, serve: Serve) -> None:
    process = serve(repository)
    read_until(process, "ready")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_EXIT_S)
    assert wait_until_gone(process.pid) == []


def test_kill_9_of_the_command_takes_the_server_with_it(repository: Path, serve: Serve) -> None:
    process = serve(repository)
    read_until(process, "ready")
    assert leftovers(process.pid) != []
    process.kill()
    process.communicate(timeout=_EXIT_S)
    assert wait_until_gone(process.pid) == []


def test_kill_9_of_the_guard_takes_the_server_with_it(repository: Path, serve: Serve) -> None:
    process = serve(repository)
    read_until(process, "ready")
    guard = next(int(line.split()[1][:-1]) for line in leftovers(process.pid) if "guard.py" in line)
    os.kill(guard, signal.SIGKILL)
    read_until(process, "the server was restarted")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_EXIT_S)
    assert process.returncode == 0
    assert wait_until_gone(process.pid) == []


@pytest.mark.parametrize("option", ["--grpc-port", "--http-port", "--metrics-port"])
def test_a_port_in_use_is_one_clear_line(option: str, repository: Path, serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = list(_FREE_PORTS)
        ports[ports.index(option) + 1] = port
        process = serve(repository, ports=ports)
        output, _ = process.communicate(timeout=_EXIT_S)
    assert process.returncode == 1
    assert re.fullmatch(rf"radserve: port {port} on 127\.0\.0\.1 cannot be used .*: .*", output.splitlines()[-1])
    assert leftovers(process.pid) == []


def test_another_host_is_refused_in_one_clear_line_that_names_the_option(repository: Path, serve: Serve) -> None:
    process = serve(repository, "--host", "0.0.0.0")  # noqa: S104 - refused
    output, _ = process.communicate(timeout=_EXIT_S)
    assert process.returncode == 1
    assert output.splitlines()[-1].startswith("radserve: 0.0.0.0 is not loopback")
    assert output.splitlines()[-1].endswith("(--i-understand-this-is-not-for-production)")


def test_who_says_that_it_is_not_for_production_may_serve_another_host(repository: Path, serve: Serve) -> None:
    process = serve(repository, "--host", "0.0.0.0", "--i-understand-this-is-not-for-production")  # noqa: S104 - the test
    assert "0.0.0.0:" in read_until(process, "ready after")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_EXIT_S)


def test_a_repository_that_is_not_as_published_is_one_clear_line(repository: Path, serve: Serve) -> None:
    (repository / "add_one_pipeline" / "config.pbtxt").write_text("")
    process = serve(repository)
    output, _ = process.communicate(timeout=_EXIT_S)
    assert process.returncode == 1
    assert len(output.splitlines()) == 2
    assert "add_one_pipeline/config.pbtxt: differs from what was published" in output


@pytest.mark.parametrize("holds", ["nothing", "models without a contract", "a repository"])
def test_a_folder_without_a_public_model_is_one_clear_line(holds: str, repository: Path, serve: Serve) -> None:
    folder = repository.parent if holds == "a repository" else repository.parent / "other"
    if holds == "models without a contract":
        write_config(folder / "raw", (("X", "FP32", (4,)),), (("Y", "FP32", (4,)),))
    folder.mkdir(exist_ok=True)
    process = serve(folder)
    output, _ = process.communicate(timeout=_EXIT_S)
    assert process.returncode == 1
    assert output.startswith(f"radserve: {folder} holds no model with a contract: export one into it (radserve export")
    assert len(output.splitlines()) == 1


def test_a_server_that_dies_at_start_is_one_clear_line(repository: Path, serve: Serve, copy_triton: CopyTriton) -> None:
    broken = copy_triton()
    broken.write_text("#!/bin/sh\necho error: no disk; exit 3\n")
    process = serve(repository, "--tritonserver", str(broken))
    output, _ = process.communicate(timeout=_EXIT_S)
    assert process.returncode == 1
    assert output.splitlines()[-1] == "radserve: the server died at start (exit code 3: no disk)"
    assert len(output.splitlines()) == 2
    assert leftovers(process.pid) == []


def test_what_the_supervisor_does_is_told(repository: Path, serve: Serve) -> None:
    process = serve(repository)
    read_until(process, "ready")
    stub = next(int(line.split()[1][:-1]) for line in leftovers(process.pid) if "python_backend_stub" in line)
    os.kill(stub, signal.SIGKILL)
    seen = read_until(process, "was loaded anew")
    assert "a Python process of model add_one_pipeline died" in seen
