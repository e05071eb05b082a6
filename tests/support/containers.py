"""The container's entry point, run with the embedded Triton."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.deployment import DEPLOY
from support.servers import write_certificate

from radserve import TLS, Client
from radserve_server.discover import find_triton
from radserve_server.ports import choose_ports
from radserve_server.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Container:
    """The entry point's Triton: its ports, and the folder of certificates."""

    grpc: str
    http: str
    metrics: str
    secrets: Path

    @property
    def tls(self) -> TLS:
        """A client's certificate."""
        return TLS.from_files(*(self.secrets / name for name in ("ca.pem", "client.key", "client.pem")))


@contextmanager
def entry_point(repository: Path, secrets: Path, *under: str, traces: str = "") -> Iterator[Container]:
    """Run the entry point with the embedded Triton, as the image does with NVIDIA's.

    Args:
        repository: What it serves.
        secrets: As ``write_secrets`` makes them.
        under: The begin of a command that runs it.
        traces: Where its spans go.
    """
    runtime, installed = Runtime(), find_triton()
    backends = runtime.prepare(installed)
    regions = f"--backend-config=python,shm-region-prefix-name={runtime.shared_memory_prefix}"  # removed with the rest
    ports = choose_ports("127.0.0.1", 0, 0, 0)
    own = [f"--{name}-port={port}" for name, port in zip(("grpc", "http", "metrics"), ports, strict=True)]
    environment = installed.environment() | {"RADSERVE_MODELS": str(repository), "RADSERVE_SECRETS": str(secrets)}
    if traces:
        environment["RADSERVE_TRACES"] = traces
        own += ["--trace-config", "opentelemetry,bsp_schedule_delay=100"]
    environment["PATH"] += f":{installed.binary.parent}"
    grpc, http, metrics = (f"127.0.0.1:{port}" for port in ports)
    running = Container(grpc, http, metrics, secrets)
    with (secrets / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - this project's
            [*under, str(DEPLOY / "docker" / "entrypoint"), f"--backend-directory={backends}", regions, *own],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with Client(running.grpc, tls=running.tls) as client:
                client.wait_until_ready(60)
            yield running
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            runtime.remove()


def write_secrets(folder: Path) -> None:
    """Write an authority, a server's certificate where the entry point looks for it, and a client's."""
    for name, signed_by in (("ca", None), ("server", "ca"), ("client", "ca")):
        write_certificate(folder, name, signed_by)
    (folder / "triton").mkdir()
    for name, target in (("server.pem", "tls.crt"), ("server.key", "tls.key"), ("ca.pem", "ca.crt")):
        shutil.copy(folder / name, folder / "triton" / target)
