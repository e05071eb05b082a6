"""The real Prometheus, asking the parts of a cluster."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from radserve.errors import ServerStartError
from radserve_server.neighbour import Neighbour, page, program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_PERIOD = "2s"
_READY_S = 20.0
_POLL_S = 0.05
# As deploy/monitoring calls them: its rules and its dashboard fit a cluster on one machine, too.
_JOBS = {"radserve-triton": "/metrics", "radserve-envoy": "/stats/prometheus"}


class Prometheus(Neighbour):
    """A Prometheus that runs.

    Args:
        folder: Its configuration and its data.
        port: Of its page, on loopback.
        targets: ``host:port`` of what it asks, by the jobs ``radserve-triton`` and ``radserve-envoy``.
    """

    name = "Prometheus"

    def __init__(self, folder: Path, port: int, targets: Mapping[str, Sequence[str]]) -> None:
        super().__init__(folder)
        self.url = f"127.0.0.1:{port}"
        self._targets = targets

    def wait_until_ready(self) -> None:
        """Return when its page is there, it has ended, or that takes too long."""
        deadline = time.monotonic() + _READY_S
        while not page(f"http://{self.url}/-/ready") and time.monotonic() < deadline:
            if self.wait_for_end(_POLL_S):
                return

    def write(self) -> None:
        """Write whom it asks, as JSON, which is YAML."""
        jobs = [
            {"job_name": job, "metrics_path": _JOBS[job], "static_configs": [{"targets": list(targets)}]}
            for job, targets in self._targets.items()
        ]
        configuration = {"global": {"scrape_interval": _PERIOD}, "scrape_configs": jobs}
        (self.folder / "prometheus.yml").write_text(json.dumps(configuration, indent=2) + "\n")

    def command(self) -> list[str]:
        """The program and its arguments."""
        found = program("prometheus")
        if found is None:
            msg = "there is no prometheus on the PATH: install it (Debian/Ubuntu: apt-get install prometheus)"
            raise ServerStartError(msg)
        return [
            str(found),
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            "--storage.tsdb.retention.size=256MB",
            f"--web.listen-address={self.url}",
            "--log.level=error",
        ]
