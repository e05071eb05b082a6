"""What a cluster does with its replicas, and tells, without any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.deployment import ROOT

from radserve.errors import ServerStartError
from radserve_server import cluster as module
from radserve_server.cluster import Cluster
from radserve_server.envoy import Upstream

if TYPE_CHECKING:
    from pathlib import Path


class _Server:
    """A replica."""

    gave_up = False
    pid = 0

    def __init__(self, number: int, gateway: _Gateway) -> None:
        self.grpc_url = f"127.0.0.1:{number}"
        self._gateway = gateway

    def restart(self) -> None:
        """It comes back."""
        self._gateway.restarted.append(self.grpc_url[-1])
        self._gateway.healthy[self.grpc_url] = True

    def stop(self) -> None:
        """It never runs."""


class _Gateway:
    """What the gateway finds."""

    def __init__(self) -> None:
        self.healthy: dict[str, bool] = {}
        self.restarted: list[str] = []

    def upstreams(self) -> dict[str, Upstream]:
        """As Envoy's."""
        return {url: Upstream(healthy, 0) for url, healthy in self.healthy.items()}

    def stop(self) -> None:
        """It never runs."""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> _Gateway:
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    monkeypatch.setattr(module, "_HEALTHY_S", 0.1)
    monkeypatch.setattr(module, "envoy_program", lambda: None)
    monkeypatch.setattr(module, "development_certificates", lambda *_: {})
    return _Gateway()


def _cluster(gateway: _Gateway, folder: Path, healthy: list[bool]) -> Cluster:
    running = Cluster(folder, replicas=len(healthy))
    servers = [_Server(number, gateway) for number in range(len(healthy))]
    gateway.healthy = {server.grpc_url: one for server, one in zip(servers, healthy, strict=True)}
    vars(running).update(servers=servers, _envoy=gateway)
    return running


@pytest.mark.parametrize(
    ("healthy", "order"),
    [
        ([True], "0"),
        ([True, True, True], "012"),
        ([True, False], "10"),  # the other way round nobody would answer meanwhile
        ([True, False, True], "102"),
        ([False, False], "01"),
    ],
)
def test_a_replica_that_answers_is_started_anew_while_another_answers(
    healthy: list[bool], order: str, gateway: _Gateway, tmp_path: Path
) -> None:
    _cluster(gateway, tmp_path, healthy).rolling_restart()
    assert "".join(gateway.restarted) == order


def test_the_last_replica_that_answers_is_left_alone(
    gateway: _Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = _cluster(gateway, tmp_path, [True, True])
    healthy = running.status()
    gateway.healthy["127.0.0.1:1"] = False  # just now
    monkeypatch.setattr(running, "status", lambda: healthy)
    with pytest.raises(ServerStartError, match=r"does not find 127\.0\.0\.1:1 healthy"):
        running.rolling_restart()
    assert gateway.restarted == []


def test_a_cluster_stopped_while_it_starts_waits_for_no_replica(gateway: _Gateway, tmp_path: Path) -> None:
    running = _cluster(gateway, tmp_path, [True])
    vars(running.servers[0])["start"] = vars(running)["_stopping"].set
    with pytest.raises(ServerStartError, match="was stopped"):
        running._start_servers()


def test_starting_a_cluster_twice_does_not_stop_it(gateway: _Gateway, tmp_path: Path) -> None:
    running = _cluster(gateway, tmp_path, [True])
    with pytest.raises(ServerStartError, match="started already"):
        running.start()
    assert vars(running)["_envoy"] is gateway


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(("canary", "warned"), [(None, False), ("chest_xray", True)])
def test_whose_canary_ends_with_a_release_is_told(
    canary: str | None, caplog: pytest.LogCaptureFixture, *, warned: bool
) -> None:
    running = Cluster(ROOT / "model_repository", replicas=1, canary=canary)
    vars(running.servers[0])["start"] = vars(running)["_stopping"].set
    with pytest.raises(ServerStartError, match="was stopped"):
        running.start()
    assert ("the canary asks chest_xray: after a release" in caplog.text) is warned
    assert bool(caplog.records) is warned
