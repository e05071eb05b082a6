"""Replicas that die, freeze or leave while they are asked: nothing is lost, and they come back by themselves."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from support.asking import Asking
from support.echo import write_echo
from support.figures import tell
from support.servers import wait_until

from radserve_server import Cluster
from radserve_server.cluster import State
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve_server import EmbeddedServer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    repository = tmp_path_factory.mktemp("cluster") / "models"
    write_echo(repository)
    with Cluster(repository, verify=False) as running:
        yield running


def _server(server: EmbeddedServer, number: signal.Signals) -> None:
    os.kill(server.pid, number)


def _stubs(server: EmbeddedServer, number: signal.Signals) -> None:
    for stub in stubs_of(server.pid, server.repository):
        os.kill(stub.pid, number)


_FAULTS = {
    "server killed": (_server, signal.SIGKILL),
    "server terminated": (_server, signal.SIGTERM),
    "server frozen": (_server, signal.SIGSTOP),
    "models killed": (_stubs, signal.SIGKILL),
    "models frozen": (_stubs, signal.SIGSTOP),
}


def _provoke(cluster: Cluster, fault: str, count: int) -> None:
    """A fault of one replica while callers ask, and until it answers again and so many were answered."""
    strike, number = _FAULTS[fault]
    which = list(_FAULTS).index(fault) % len(cluster.servers)  # not one that waits because it has just been restarted
    wounded, healed = cluster.servers[which], cluster.status()[which].restarts
    with Asking(cluster) as asking:
        asking.see(count // 5)
        begin = time.monotonic()
        strike(wounded, number)
        assert wait_until(lambda: cluster.status()[which].restarts > healed, 120)
        assert wait_until(lambda: all(one.state is State.HEALTHY for one in cluster.status()), 60)
        asked = cluster.status()[which].requests
        assert wait_until(lambda: cluster.status()[which].requests > asked)
        recovery_s = time.monotonic() - begin
        asking.see(max(count - asking.answered, count // 5))
    _tell(asking, recovery_s)


def _tell(asking: Asking, recovery_s: float) -> None:
    lost, wrong = len(asking.lost), len(asking.wrong)
    tell(answers=asking.answered, lost=lost, wrong=wrong, worst_s=asking.worst_s, recovery_s=recovery_s)


def test_a_replica_that_is_killed_loses_no_answer_and_comes_back(cluster: Cluster) -> None:
    _provoke(cluster, "server killed", 1000)


@pytest.mark.chaos
@pytest.mark.parametrize("fault", _FAULTS)
def test_no_fault_of_a_replica_loses_or_spoils_an_answer(cluster: Cluster, fault: str) -> None:
    _provoke(cluster, fault, 5000)


@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.chaos)])
def test_a_rolling_restart_loses_no_answer(cluster: Cluster, count: int) -> None:
    pids = [server.pid for server in cluster.servers]
    with Asking(cluster) as asking:
        asking.see(count // 5)
        begin = time.monotonic()
        cluster.rolling_restart()
        took_s = time.monotonic() - begin
        asking.see(max(count - asking.answered, count // 5))
    assert not set(pids) & {server.pid for server in cluster.servers}
    _tell(asking, took_s)
