"""Servers as an operator runs them, not as this project does."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import tritonclient.grpc as triton

from radserve_server.discover import find_triton
from radserve_server.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def free_port() -> int:
    """A port that nothing listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def raw_server(repository: Path, *arguments: str) -> Iterator[tuple[ServerProcess, str]]:
    """A Triton that no canary of ours could reach: behind TLS, or restricted."""
    port = free_port()
    standard = [
        f"--model-repository={repository}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
    ]
    process = ServerProcess(find_triton(), [*standard, *arguments], drain_s=5)
    process.start()
    try:
        assert process.listening.wait(60), process.telling_line()
        yield process, f"127.0.0.1:{port}"
    finally:
        process.kill()


def write_certificate(folder: Path, name: str, signed_by: str | None = None, address: str = "127.0.0.1") -> None:
    """Write ``NAME.pem`` and ``NAME.key`` for an address; an authority, unless another one signs it."""
    openssl = shutil.which("openssl")
    assert openssl
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key)]
    command += ["-out", str(certificate), "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{address}"]
    if signed_by:
        command += ["-CA", str(folder / f"{signed_by}.pem"), "-CAkey", str(folder / f"{signed_by}.key")]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed program


def served(url: str) -> dict[str, list[int]]:
    """The versions of each model that a server has ready."""
    found: dict[str, list[int]] = {}
    with triton.InferenceServerClient(url) as client:
        for one in client.get_model_repository_index().models:
            if one.state == "READY":
                found[one.name] = sorted([*found.get(one.name, []), int(one.version)])
    return found


def wait_until(holds: Callable[[], bool], timeout_s: float = 60) -> bool:
    """Whether something came to hold in time."""
    deadline = time.monotonic() + timeout_s
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return held
