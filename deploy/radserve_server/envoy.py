"""The real Envoy with a rendered configuration."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.errors import MissingExtraError, ServerStartError
from radserve_server.gateway import write
from radserve_server.neighbour import Neighbour, page, program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from radserve_server.gateway import Gateway

_POLL_S = 0.05


@dataclass(frozen=True)
class Upstream:
    """What the gateway knows of one replica.

    Attributes:
        healthy: Whether it gets requests.
        requests: How many it got, canaries aside.
    """

    healthy: bool
    requests: int


def envoy_program() -> Path:
    """The executable.

    Raises:
        MissingExtraError: There is none.
    """
    found = program("envoy")
    if found is None:
        extra = "cluster"
        raise MissingExtraError(extra, "the gateway, Envoy,")
    return found


class Envoy(Neighbour):
    """A gateway that runs.

    Args:
        gateway: What it is told; its folder is this one's alone.
        files: Further files of the folder, by their path in it.
        access_log: Whether to keep it, in the folder's ``access.log``.

    Attributes:
        url: ``host:port`` for clients.
        admin_port: Of Envoy's own interface.
        log: The access log.

    Raises:
        MissingExtraError: There is no Envoy.
    """

    name = "the gateway"

    def __init__(self, gateway: Gateway, *, files: Mapping[str, bytes] | None = None, access_log: bool = False) -> None:
        super().__init__(Path(gateway.folder))
        self._program = envoy_program()
        self._gateway = gateway
        self._files = dict(files or {})
        self._keeps_log = access_log
        self.url = f"127.0.0.1:{gateway.port}"
        self.admin_port = gateway.admin_port
        self.log = self.folder / "access.log"
        self.metrics_url = f"127.0.0.1:{gateway.metrics_port}"

    @property
    def output(self) -> Path | None:
        """Where its standard output is kept, the access log; None drops it."""
        return self.log if self._keeps_log else None

    def write(self) -> None:
        """Write its configuration, and the further files."""
        write(self._gateway, self.folder)
        for name, content in self._files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(content)

    def command(self) -> list[str]:
        """The program and its arguments: one thread is more than the Tritons of one machine can keep busy."""
        configuration = ["-c", str(self.folder / "envoy.yaml")]
        return [str(self._program), *configuration, "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]

    def wait_until_healthy(self, count: int, timeout_s: float) -> None:
        """Return when a number of replicas get requests.

        Args:
            count: How many.
            timeout_s: How long that may take.

        Raises:
            ServerStartError: It ended, or they are not healthy in time.
        """
        deadline = time.monotonic() + timeout_s
        while (healthy := self.statistic("membership_healthy")) < count:
            if why := self.wait_for_end(_POLL_S):
                msg = f"{self.name} ended: {why}"
                raise ServerStartError(msg)
            if time.monotonic() > deadline:
                msg = f"{self.name} finds {max(healthy, 0):.0f} of {count} replicas healthy after {timeout_s:g} s"
                raise ServerStartError(msg)

    def lost_its_port(self) -> bool:
        """Whether it ended because another process had taken one of its ports."""
        return any("in use" in line for line in self._lines)

    def read(self, path: str) -> str:
        """A page of the metrics port; empty while there is none."""
        return page(f"http://{self.metrics_url}{path}")

    def statistic(self, name: str) -> float:
        """One of Envoy's statistics of the replicas; -1 while there is none."""
        start = f'envoy_cluster_{name}{{envoy_cluster_name="triton"}} '
        values = [line for line in self.read("/stats/prometheus").splitlines() if line.startswith(start)]
        return float(values[0].removeprefix(start)) if values else -1

    def upstreams(self) -> dict[str, Upstream]:
        """What it knows of each replica, by ``host:port``; empty while it does not answer."""
        text = page(f"http://127.0.0.1:{self.admin_port}/clusters?format=json")
        clusters = json.loads(text)["cluster_statuses"] if text else []
        found = {}
        for host in (host for one in clusters if one["name"] == "triton" for host in one.get("host_statuses", [])):
            address = host["address"]["socket_address"]
            requests = [one.get("value", 0) for one in host["stats"] if one["name"] == "rq_total"]
            status = set(host["health_status"]) - {"eds_health_status"}
            found[f"{address['address']}:{address['port_value']}"] = Upstream(not status, int(requests[0]))
        return found
