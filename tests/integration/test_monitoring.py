"""Every query of rules and dashboard, asked of a real Prometheus that watches a real Triton, Envoy and SDK."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import prometheus_client
import pytest
import yaml
from msgspec.structs import replace
from support.classifiers import image_contract, write_classifier
from support.deployment import DEPLOY
from support.echo import furnished
from support.envoys import envoy, place, tls
from support.faulty import NUMBERS, note, x
from support.prometheuses import Prometheus, selectors
from support.servers import raw_server, wait_until

from monitoring import render
from radserve import Client, InputError, RadserveError, ServerOverloadedError
from radserve.contracts import Distribution, Reference
from radserve.metrics import register
from radserve_server.gateway import canary_of
from radserve_server.ports import choose_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.envoys import RunningEnvoy

_RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "monitoring" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
_TARGETS = [target for panel in render.dashboard()["panels"] for target in panel.get("targets", ())]
_HALVES = Distribution(edges=(0.5,), shares=(0.5, 0.5))
_REFERENCE = Reference(n=200, level=_HALVES, scores=(_HALVES, _HALVES))
_NOBODY = 'ALERTS{alertname="RadserveNoReplicaHealthy"}'
_NO_GPU = "Triton's docs/user_guide/metrics.md, GPU Metrics: there is no GPU here"
_NO_CLUSTER = "kube-state-metrics' docs/metrics/workload/deployment-metrics.md: there is no Kubernetes here"
_ELSEWHERE = {
    "nv_gpu_memory_used_bytes": _NO_GPU,
    "nv_gpu_memory_total_bytes": _NO_GPU,
    "nv_gpu_utilization": _NO_GPU,
    "kube_deployment_spec_replicas": _NO_CLUSTER,
    "kube_deployment_status_replicas_available": _NO_CLUSTER,
}


def _asked(query: str) -> str:
    """A dashboard's query as Grafana sends it, an alert's without the bounds that keep it silent."""
    query = query.replace("$__rate_interval", "1m").replace("$model", ".*").replace(" offset 1w", "")
    return re.sub(r" (>=|>|<|==) [\d.]+( \* [\d.]+)?", "", query)


_QUERIES = [one["expr"] for one in (*_RULES, *_TARGETS)]
_SELECTORS = sorted({selector for query in _QUERIES for selector in selectors(_asked(query))})


def _silent(prometheus: Prometheus, queries: list[str]) -> list[str]:
    """Those that give nothing and should; one that is not valid fails."""
    silent = [one for one in queries if not prometheus.query(_asked(one))]
    return [one for one in silent if not one.startswith("absent(") and not any(name in one for name in _ELSEWHERE)]


def _ask_everything(gateway: RunningEnvoy, folder: Path) -> None:
    """One answer of each code that the gateway counts."""
    with Client(gateway.url, tls=tls(folder, "client")) as client:
        echo, faulty = client.model("echo"), client.model("faulty")
        brightness = client.model("brightness")
        for image in (np.arange(64, dtype=np.int16).reshape(8, 8), np.zeros((8, 8), np.int16)):
            with suppress(InputError):
                brightness.predict(image)
        for _ in range(5):
            echo.infer({"X": np.zeros((1, 4), np.float32)})
        for asked in (x(error=1), x(raises=1)):
            with suppress(RadserveError):
                faulty.infer(asked)
        while "envoy_cluster_grpc_4{" not in gateway.read("/stats/prometheus"):  # the caller gives up at the same time
            number = next(NUMBERS)
            with suppress(RadserveError):
                faulty.infer(x(held=number), timeout_s=0.2)
            note(folder / "models", "let_go", number).touch()
        for refused in (lambda: client.model("absent"), client.models):
            with suppress(RadserveError):
                refused()
    with Client(gateway.url, tls=tls(folder, "another")) as client, pytest.raises(ServerOverloadedError):  # noqa: PT012
        echo = client.model("echo")
        for _ in range(500):
            echo.infer({"X": np.zeros((1, 4), np.float32)})


@contextmanager
def _told_metrics() -> Iterator[str]:
    """This process's page of the SDK's metrics; yields its address."""
    registry = prometheus_client.CollectorRegistry()
    observed = register(registry)
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        observed.unregister()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Watches a gateway that first had no replica, then one, and has answered with every code."""
    if not shutil.which("prometheus"):
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    folder = furnished(tmp_path_factory.mktemp("monitoring"))
    write_classifier(folder / "models", replace(image_contract(), reference=_REFERENCE))
    place(folder, "client", "upstream")
    grpc, metrics = choose_ports("127.0.0.1", 0, 0)
    arguments = [f"--grpc-port={grpc}", "--grpc-use-ssl-mutual=true", f"--grpc-root-cert={folder}/ca.pem"]
    arguments += [f"--grpc-server-cert={folder}/replica.pem", f"--grpc-server-key={folder}/replica.key"]
    arguments += ["--allow-metrics=true", "--metrics-address=127.0.0.1", f"--metrics-port={metrics}"]
    with ExitStack() as stack:
        sdk = stack.enter_context(_told_metrics())
        settings: dict[str, Any] = {"upstream_certificates": str(folder / "upstream"), "healthy": 0}
        settings |= {"requests_per_s": 50, "burst": 50}
        canary = canary_of(folder / "models", "echo")
        gateway = stack.enter_context(envoy(folder, [f"127.0.0.1:{grpc}"], canary, **settings))
        targets = {
            "radserve-triton": f"127.0.0.1:{metrics}",
            "radserve-envoy": gateway.metrics_url,
            "radserve-clients": sdk,
        }
        watching = Prometheus(folder / "prometheus", {**targets, "radserve-clients": sdk})
        stack.callback(watching.stop)
        watching.start()
        with Client(gateway.url, tls=tls(folder, "client")) as client, suppress(RadserveError):
            client.model("echo", timeout_s=1)
        assert wait_until(lambda: bool(watching.rules())), watching.last_line()
        assert wait_until(lambda: bool(watching.query(_NOBODY)))
        stack.enter_context(raw_server(folder / "models", *arguments))
        assert wait_until(lambda: gateway.statistic("membership_healthy") == 1)
        _ask_everything(gateway, folder)
        wait_until(lambda: not _silent(watching, _SELECTORS) and not _silent(watching, _QUERIES))
        yield watching


def test_all_that_queries_read_is_there(prometheus: Prometheus) -> None:
    assert _silent(prometheus, _SELECTORS) == []


def test_every_query_gives_something(prometheus: Prometheus) -> None:
    assert _silent(prometheus, _QUERIES) == []


def test_every_legend_has_its_labels(prometheus: Prometheus) -> None:
    for target in _TARGETS:
        labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for series in prometheus.query(_asked(target["expr"])):
            assert labels <= series.keys(), target


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    told = prometheus.rules()
    assert len(told) == len(_RULES)
    assert [rule for rule in told if rule["health"] != "ok" or rule.get("lastError")] == []


def test_an_alert_comes_and_goes_with_its_cause(prometheus: Prometheus) -> None:
    assert prometheus.query(f"max_over_time({_NOBODY}[10m])")
    assert wait_until(lambda: not prometheus.query(_NOBODY))


@pytest.mark.parametrize("name", _ELSEWHERE)
def test_what_cannot_be_here_is_asked_for(name: str) -> None:
    assert any(name in selector for selector in _SELECTORS), _ELSEWHERE[name]
