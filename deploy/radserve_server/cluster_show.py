"""What ``radserve cluster`` shows."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from radserve_server.certificates import CLIENT, OPERATOR
from radserve_server.cluster import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from radserve_server.cluster import Cluster, Replica

_COLOURS = {State.HEALTHY: "green", State.GAVE_UP: "red"}


def addresses(cluster: Cluster) -> dict[str, Any]:
    """Where everything is, for programs."""

    def certificates(name: str) -> dict[str, str]:
        files = {"ca": "ca.crt", "cert": f"{name}.crt", "key": f"{name}.key"}
        return {kind: str(cluster.certificate(file)) for kind, file in files.items()}

    return {
        "url": cluster.url,
        "tls": certificates(CLIENT),
        "operator_tls": certificates(OPERATOR),
        "metrics": f"http://{cluster.metrics_url}/stats/prometheus",
        "prometheus": f"http://{cluster.prometheus.url}" if cluster.prometheus else None,
        "models": list(cluster.models),
        "replicas": [
            {"grpc": one.grpc_url, "http": one.http_url, "metrics": f"http://{one.metrics_url}/metrics", "pid": one.pid}
            for one in cluster.servers
        ],
    }


def lines(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Where everything is, for people: a name and what it is."""
    where = addresses(cluster)
    yield "models", ", ".join(where["models"])
    for number, one in enumerate(where["replicas"], 1):
        yield f"replica {number}", f"{one['grpc']}, pid {one['pid']}, metrics {one['metrics']}"
    yield "gateway", f"{where['url']}, metrics {where['metrics']}"
    yield "Prometheus", where["prometheus"] or "not installed (Debian/Ubuntu: apt-get install prometheus)"
    yield "ask", f"radserve predict {where['models'][0]} scan.dcm {_options(where, 'tls')}"
    yield "operators", f"radserve models {_options(where, 'operator_tls')}"
    yield (
        "publish",
        "radserve publish "
        + " ".join(
            [
                "--repository",
                shlex.quote(str(cluster.repository)),
                *(f"--url {one['grpc']}" for one in where["replicas"]),
            ]
        ),
    )


def _options(where: dict[str, Any], who: str) -> str:
    files = [f"--tls-{kind} {shlex.quote(path)}" for kind, path in where[who].items()]
    return " ".join([f"--url {where['url']}", *files])


class Board:
    """The table of replicas, with the requests of each second since it was last made."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._at = time.monotonic()

    def table(self, replicas: Sequence[Replica]) -> Table:
        """What they do now."""
        now = time.monotonic()
        took_s, self._at = max(now - self._at, 0.001), now
        shown = Table(
            "replica",
            "address",
            Column("pid", justify="right"),
            "state",
            Column("restarts", justify="right"),
            Column("requests/s", justify="right"),
            box=None,
        )
        for number, one in enumerate(replicas, 1):
            # After the gateway's restart it counts from 0 again.
            rate = max(one.requests - self._before.get(one.url, one.requests), 0) / took_s
            self._before[one.url] = one.requests
            state = f"[{_COLOURS.get(one.state, 'yellow')}]{one.state.value}[/]"
            restarts = str(one.restarts or "")
            shown.add_row(str(number), one.url, str(one.pid or ""), state, restarts, f"{rate:.0f}")
        return shown
