"""Tritons behind Envoy on one machine: what callers see, and what is left."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.echo import write_echo
from support.leftovers import leftovers
from support.servers import wait_until

from radserve import Client, ServerError
from radserve_server import Cluster, EventKind
from radserve_server.cluster import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def told() -> list[tuple[str, EventKind]]:
    """What the cluster told."""
    return []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, EventKind]]) -> Iterator[Cluster]:
    repository = tmp_path_factory.mktemp("cluster") / "models"
    write_echo(repository)
    with Cluster(
        repository, replicas=2, verify=False, on_event=lambda who, event: told.append((who, event.kind))
    ) as running:
        yield running


def _ask(cluster: Cluster, number: int = 0) -> None:
    with Client(cluster.url, tls=cluster.tls) as client:
        answer = client.model("echo").infer({"X": np.full((1, 4), number, np.float32)}, timeout_s=20)
        assert answer["Y"].tolist() == [[number + 1] * 4]


def test_answers_come_from_all_replicas(cluster: Cluster) -> None:
    before = [one.requests for one in cluster.status()]
    for number in range(20):
        _ask(cluster, number)
    after = cluster.status()
    assert all(one.requests > old for one, old in zip(after, before, strict=True))
    assert [one.state for one in after] == [State.HEALTHY] * 2
    assert [one.pid for one in after] == [one.pid for one in cluster.servers]


def test_the_index_is_the_operators(cluster: Cluster) -> None:
    with Client(cluster.url, tls=cluster.operator_tls) as client:
        assert [model.name for model in client.models()] == ["echo"]
    with Client(cluster.url, tls=cluster.tls) as client, pytest.raises(ServerError):
        client.models()


def test_a_gateway_that_dies_is_started_anew_at_the_same_place(
    cluster: Cluster, told: list[tuple[str, EventKind]]
) -> None:
    pid, url = cluster.envoy.pid, cluster.url
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: cluster.envoy.pid not in {0, pid})
    assert wait_until(lambda: cluster.statistic("membership_healthy") == 2)
    assert told[-2:] == [("the gateway", EventKind.SERVER_DIED), ("the gateway", EventKind.RESTARTED)]
    assert cluster.url == url
    _ask(cluster)


def test_nothing_is_left(tmp_path: Path) -> None:
    before = leftovers()
    write_echo(tmp_path / "models")
    with Cluster(tmp_path / "models", replicas=1, verify=False) as cluster:
        assert cluster.folder.stat().st_mode & 0o777 == 0o700
        url = cluster.url
    assert leftovers() == before
    host, port = url.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
