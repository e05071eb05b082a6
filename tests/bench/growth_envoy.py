"""Envoy in front of replicas: gRPC in, each request to the replica with the fewest under way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENVOY = Path(sys.executable).with_name("envoy")
START_S = 30.0
_TYPE = "type.googleapis.com/envoy.extensions."
_NO_LIMIT = 1_000_000


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def configuration(replicas: Sequence[str]) -> dict[str, Any]:
    """A static configuration: one HTTP/2 listener on a free port, one cluster.

    Args:
        replicas: ``host:port`` of each.
    """
    endpoints = [{"endpoint": {"address": _address(*_split(one))}} for one in replicas]
    cluster = {
        "name": "triton",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {
            "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _NO_LIMIT)]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": "triton", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "triton", "timeout": "0s"}}
    manager = {
        "@type": f"{_TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "grpc",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPE}filters.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "grpc",
        "address": _address("127.0.0.1", 0),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "admin": {"address": _address("127.0.0.1", 0)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _split(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition(":")
    return host, int(port)


@contextmanager
def envoy(replicas: Sequence[str], folder: Path) -> Iterator[tuple[str, int]]:
    """A running Envoy; gives its ``host:port`` and its process id.

    Args:
        replicas: ``host:port`` of each.
        folder: For its configuration and its log.
    """
    admin, log = folder / f"admin{len(replicas)}", folder / f"envoy{len(replicas)}.log"
    command = [str(ENVOY), "--config-yaml", json.dumps(configuration(replicas)), "--disable-hot-restart"]
    command += ["--admin-address-path", str(admin), "--log-path", str(log), "--log-level", "warning"]
    process = subprocess.Popen(command)  # noqa: S603 - ours
    try:
        yield _listener(process, admin, log), process.pid
    finally:
        process.terminate()
        process.wait()


def _listener(process: subprocess.Popen[bytes], admin: Path, log: Path) -> str:
    """Where it listens, once it does."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        if admin.exists() and (where := admin.read_text(encoding="ascii")):
            with urllib.request.urlopen(f"http://{where}/listeners?format=json", timeout=5) as answer:
                found = json.load(answer).get("listener_statuses", [])
            if found:
                address = found[0]["local_address"]["socket_address"]
                return f"{address['address']}:{address['port_value']}"
        time.sleep(0.05)
    msg = f"Envoy did not listen within {START_S:g} s"
    raise TimeoutError(msg)
