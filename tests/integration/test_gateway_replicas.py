"""Which replica the gateway asks, and whom it asks next: the real Envoy in front of real Tritons."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.echo import answers, furnished, two_replicas, write_echo
from support.envoys import RunningEnvoy, between, envoy, place, tls, unavailable
from support.faulty import x
from support.figures import tell
from support.servers import raw_server, wait_until

from radserve import Client, ServerError, ServerUnavailableError
from radserve_server import EmbeddedServer
from radserve_server.gateway import canary_of
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="module")
def replicas(folder: Path) -> Iterator[list[EmbeddedServer]]:
    with two_replicas(folder) as running:
        yield running


def test_a_replica_that_says_it_is_unavailable_is_ejected(folder: Path, replicas: list[EmbeddedServer]) -> None:
    urls, canary = [one.grpc_url for one in replicas], canary_of(folder / "models", "echo")
    with unavailable(urls[0]) as broken, envoy(folder, [*urls, broken], canary, canary_period_s=60) as gateway:
        with Client(gateway.url, tls=tls(folder, "client")) as client:
            for _ in range(200):
                with suppress(ServerUnavailableError):
                    client.model("echo").infer({"X": np.zeros((1, 4), np.float32)})
                if gateway.statistic("outlier_detection_ejections_active") == 1:
                    break
        assert gateway.statistic("outlier_detection_ejections_active") == 1
        answers(gateway, folder, count=20)


def test_a_replica_is_told_how_long_its_caller_waits(folder: Path, replicas: list[EmbeddedServer]) -> None:
    left: list[float] = []
    canary = canary_of(folder / "models", "echo")
    with (
        between(replicas[0].grpc_url, lambda _, context: left.append(context.time_remaining())) as replica,
        envoy(folder, [replica], canary) as gateway,
        Client(gateway.url, tls=tls(folder, "client")) as client,
    ):
        model = client.model("echo", timeout_s=60)
        assert not any(one < 30 for one in left)
        model.infer({"X": np.zeros((1, 4), np.float32)}, timeout_s=20)
    assert any(10 < one < 30 for one in left)


def test_a_replica_whose_model_died_gets_no_requests(folder: Path, replicas: list[EmbeddedServer]) -> None:
    with EmbeddedServer(folder / "models", supervise=False, verify=False) as third:
        urls = [one.grpc_url for one in (*replicas, third)]
        with envoy(folder, urls, canary_of(folder / "models", "echo")) as gateway:
            for stub in stubs_of(third.pid, third.repository):
                os.kill(stub.pid, signal.SIGKILL)
            assert wait_until(lambda: gateway.statistic("membership_healthy") == 2)
            answers(gateway, folder, count=20)


def test_where_the_canary_alone_is_wrong_requests_are_answered(folder: Path, replicas: list[EmbeddedServer]) -> None:
    wrong = replace(canary_of(folder / "models", "echo"), answer=b"another")
    with envoy(folder, [one.grpc_url for one in replicas], wrong, healthy=0) as gateway:
        assert wait_until(lambda: gateway.statistic("health_check_failure") >= 4)
        answers(gateway, folder, count=20)
        assert gateway.statistic("membership_healthy") == 0


@pytest.mark.parametrize(("shown", "healthy"), [("replica", 1), ("gateway", 0)])
def test_replicas_are_reached_by_mutual_tls_and_by_their_name(folder: Path, shown: str, healthy: int) -> None:
    place(folder, "client", "upstream")
    arguments = ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={folder}/ca.pem"]
    arguments += [f"--grpc-server-cert={folder}/{shown}.pem", f"--grpc-server-key={folder}/{shown}.key"]
    upstream: dict[str, Any] = {"upstream_certificates": str(folder / "upstream"), "healthy": healthy}
    canary = canary_of(folder / "models", "echo")
    with raw_server(folder / "models", *arguments) as (_, url), envoy(folder, [url], canary, **upstream) as gateway:
        if healthy:
            answers(gateway, folder)
        else:
            assert wait_until(lambda: gateway.statistic("health_check_failure") > 0)
            assert gateway.statistic("health_check_success") == 0


def test_what_one_replica_has_not_yet_another_is_asked_for(
    folder: Path, replicas: list[EmbeddedServer], tmp_path: Path
) -> None:
    write_echo(tmp_path)  # and no model "faulty"
    canary = canary_of(tmp_path)
    with EmbeddedServer(tmp_path) as older, envoy(folder, [older.grpc_url, replicas[0].grpc_url], canary) as gateway:
        with Client(gateway.url, tls=tls(folder, "client")) as client:
            model = client.model("faulty")
            assert all(model.infer(x())["Y"].tolist() == [[1, 1, 1, 1]] for _ in range(30))
        assert gateway.statistic("upstream_rq_retry_success") > 0


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_replicas_that_die_or_leave_one_after_the_other_lose_no_answer(folder: Path, number: signal.Signals) -> None:
    canary = canary_of(folder / "models", "echo")
    with ExitStack() as stack:
        options: dict[str, Any] = {"verify": False, "drain_s": 2.0}
        servers = [stack.enter_context(EmbeddedServer(folder / "models", **options)) for _ in range(3)]
        rate = {"requests_per_s": 10**6, "burst": 10**6}
        gateway = stack.enter_context(envoy(folder, [one.grpc_url for one in servers], canary, **rate))
        client = stack.enter_context(Client(gateway.url, tls=tls(folder, "client")))
        model, done = client.model("echo"), threading.Event()

        def ask_on(value: int) -> int:
            asked = 0
            while not done.is_set():
                x = np.full((1, 4), value, np.float32)
                assert model.infer({"X": x}, timeout_s=20)["Y"].tolist() == [[value + 1] * 4]
                asked += 1
            return asked

        with ThreadPoolExecutor(4) as pool:
            callers = [pool.submit(ask_on, value) for value in range(4)]
            try:
                for server in servers:
                    asked, pid = gateway.statistic("upstream_rq_total"), server.pid
                    assert wait_until(partial(_is_asked_more, gateway, asked + 200))
                    os.kill(pid, number)
                    assert wait_until(partial(_runs_anew, server, pid))
                    assert wait_until(lambda: gateway.statistic("membership_healthy") == len(servers))
            finally:
                done.set()
            assert sum(caller.result() for caller in callers) > 600


def _is_asked_more(gateway: RunningEnvoy, than: float) -> bool:
    return gateway.statistic("upstream_rq_total") > than


def _runs_anew(server: EmbeddedServer, pid: int) -> bool:
    return server.pid not in {0, pid}


def test_a_request_that_kills_a_model_is_tried_twice_at_most(folder: Path) -> None:
    canary = canary_of(folder / "models", "echo")
    with ExitStack() as stack:
        # Nobody loads it anew: then the gateway would rightly ask on, and Triton bury those that were killed.
        started = (EmbeddedServer(folder / "models", verify=False, supervise=False) for _ in range(3))
        servers = [stack.enter_context(one) for one in started]
        gateway = stack.enter_context(envoy(folder, [one.grpc_url for one in servers], canary))
        client = stack.enter_context(Client(gateway.url, tls=tls(folder, "client")))
        model = client.model("faulty")
        before = gateway.statistic("upstream_rq_total")
        with pytest.raises(ServerError):
            model.infer(x(raises=2), timeout_s=20)
        attempts = gateway.statistic("upstream_rq_total") - before
        killed = sum(stub.dead for one in servers for stub in stubs_of(one.pid, one.repository))
        tell(attempts=attempts, killed=killed)
        assert 1 <= killed <= attempts <= 2
        answers(gateway, folder, count=20)
