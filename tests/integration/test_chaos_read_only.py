"""A server starts and serves from a file system that cannot be written, as a user who may do nothing."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.commands import RADSERVE
from support.containers import entry_point, write_secrets
from support.deployment import ROOT
from support.disks import read_only
from support.figures import timed
from support.inference import add_one
from support.leftovers import wait_until_gone
from support.repositories import write_add_one, write_python

from radserve import Client
from radserve_server.ports import choose_ports

if TYPE_CHECKING:
    from pathlib import Path

_STEP = """
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array + 1)]) for array in arrays]
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with both backends that this project has."""
    write_add_one(tmp_path / "models")
    write_python(tmp_path / "models", "python_one", _STEP)
    return tmp_path / "models"


def test_neither_checkout_nor_repository_nor_system_can_be_written(models: Path) -> None:
    # The control of the tests below.
    script = "id -u; grep CapEff /proc/self/status; for folder; do touch $folder/x 2>&1 || true; done"
    command = [*read_only(models), "/bin/sh", "-ec", script, "sh", str(models), "/etc", "/usr"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603 - ours
    assert told[:2] == ["1000", "CapEff:\t0000000000000000"]
    assert [line.rpartition(": ")[2] for line in told[2:]] == ["Read-only file system"] * 3


def test_radserve_serve_serves_and_leaves_nothing(models: Path) -> None:
    grpc, http, metrics = map(str, choose_ports("127.0.0.1", 0, 0, 0))
    command = [*read_only(models), *RADSERVE, "serve"]
    command += ["--repository", str(models), "--grpc-port", grpc, "--http-port", http, "--metrics-port", metrics]
    url = f"127.0.0.1:{grpc}"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as serving:  # noqa: S603 - ours
        try:
            with timed("ready_after_s"), Client(url) as client:
                client.wait_until_ready(60)
            assert add_one(url) == add_one(url, "python_one") == [1, 1, 1, 1]
        finally:
            serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 0
    assert wait_until_gone(serving.pid) == []


def test_the_containers_entry_point_serves(models: Path, tmp_path: Path) -> None:
    write_secrets(tmp_path)
    with (
        entry_point(models, tmp_path, *read_only(models)) as container,
        Client(container.grpc, tls=container.tls) as client,
    ):
        assert client.health().keys() == {"add_one", "python_one"}
