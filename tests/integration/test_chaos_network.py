"""A network that fails before and behind the gateway: proxies between a client, the real Envoy and real Tritons."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc as triton
from support.bystanders import Bystanders
from support.echo import furnished, two_replicas, write_echo
from support.envoys import RunningEnvoy, envoy, tls
from support.figures import tell, timed
from support.proxies import Proxy
from support.repositories import write_add_one
from support.servers import raw_server, wait_until

from radserve import Client, DeadlineExceededError, ServerUnavailableError
from radserve.options import ClientOptions, RetryPolicy
from radserve_server import EmbeddedServer
from radserve_server.gateway import canary_of
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LARGE = 2**18


class Route(NamedTuple):
    """What requests pass through.

    Attributes:
        folder: With certificates and models.
        servers: The replicas.
        behind: In front of each of them.
        gateway: In front of those.
    """

    folder: Path
    servers: list[EmbeddedServer]
    behind: list[Proxy]
    gateway: RunningEnvoy


@pytest.fixture(scope="module")
def route(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Route]:
    folder = furnished(tmp_path_factory.mktemp("network"))
    write_echo(folder / "models", "counted")
    rate = {"requests_per_s": 10**6, "burst": 10**6}
    with two_replicas(folder) as servers, ExitStack() as stack:
        behind = [stack.enter_context(Proxy(server.grpc_url)) for server in servers]
        urls, canary = [proxy.url for proxy in behind], canary_of(folder / "models", "echo")
        yield Route(folder, servers, behind, stack.enter_context(envoy(folder, urls, canary, **rate)))


@pytest.fixture
def before(route: Route) -> Iterator[Proxy]:
    """Between clients and the gateway."""
    with Proxy(route.gateway.url) as proxy:
        yield proxy


@pytest.fixture
def connect(route: Route, before: Proxy) -> Iterator[Callable[..., Client]]:
    """A function that makes a client of that proxy; it is closed after the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Client:
            given = ClientOptions(endpoints=(before.url,), tls=tls(route.folder, "client"), **options)
            return stack.enter_context(Client(options=given))

        yield make


def _echoes(client: Client, **options: Any) -> bool:
    answer = client.model("echo").infer({"X": np.ones((1, 4), np.float32)}, **options)
    return bool(answer["Y"].tolist() == [[2] * 4])


def test_a_stalled_network_before_the_gateway_keeps_the_deadline(before: Proxy, connect: Callable[..., Client]) -> None:
    client = connect()
    model = client.model("echo")
    before.stall()
    with timed("ended_after_s"), pytest.raises(DeadlineExceededError):
        model.infer({"X": np.ones((1, 4), np.float32)}, timeout_s=0.3)
    before.resume()
    assert _echoes(client)


def test_a_network_before_the_gateway_that_was_cut_is_found_again(
    before: Proxy, connect: Callable[..., Client]
) -> None:
    client = connect(retry=RetryPolicy(attempts=2))
    assert _echoes(client)
    before.cut()
    with pytest.raises(ServerUnavailableError):
        _echoes(client, timeout_s=20)
    before.mend()

    def is_found() -> bool:
        try:
            return _echoes(client)
        except ServerUnavailableError:
            return False

    assert wait_until(is_found)


def test_a_connection_reset_in_the_body_before_the_gateway_gives_one_result(
    route: Route, before: Proxy, connect: Callable[..., Client]
) -> None:
    model = connect().model("counted")
    counted = _executions(route)
    before.reset_after = _LARGE
    assert model.infer({"X": np.ones((1, _LARGE), np.float32)})["Y"].tolist() == [[2] * 4]
    assert before.reset_after is None
    assert before.connections == 2
    assert _executions(route) == counted + 1


def _executions(route: Route) -> int:
    """How many requests the replicas computed."""
    found = 0
    for server in route.servers:
        with triton.InferenceServerClient(server.grpc_url) as client:
            found += client.get_inference_statistics("counted").model_stats[0].inference_stats.success.count
    return found


def test_connections_reset_behind_the_gateway_cost_no_answer(route: Route) -> None:
    with Bystanders(route.gateway.url, route.folder, timeout_s=20) as bystanders:
        for _ in range(5):
            route.behind[0].reset()
            bystanders.see(20)


def test_a_replica_that_is_cut_off_costs_no_answer_and_comes_back(route: Route) -> None:
    with Bystanders(route.gateway.url, route.folder, timeout_s=20) as bystanders:
        route.behind[0].cut()
        assert wait_until(lambda: route.gateway.statistic("membership_healthy") == 1)
        bystanders.see()
        route.behind[0].mend()
        assert wait_until(lambda: route.gateway.statistic("membership_healthy") == 2)
        bystanders.see()


def test_a_replica_that_hangs_is_left_out_and_whom_it_kept_keeps_the_deadline(
    route: Route, connect: Callable[..., Client]
) -> None:
    client = connect()
    model, kept = client.model("echo"), 0
    route.behind[0].stall()
    try:
        for _ in range(100):
            try:
                assert model.infer({"X": np.ones((1, 4), np.float32)}, timeout_s=0.5)
            except DeadlineExceededError:
                kept += 1
            if route.gateway.statistic("membership_healthy") == 1:
                break
        tell(kept=kept)
        assert kept
        assert wait_until(lambda: route.gateway.statistic("membership_healthy") == 1)
        with Bystanders(route.gateway.url, route.folder) as bystanders:
            bystanders.see()
    finally:
        route.behind[0].resume()
    assert wait_until(lambda: route.gateway.statistic("membership_healthy") == 2)


@pytest.mark.full  # until gRPC gives a connection up, 30 s
@pytest.mark.parametrize("where", ["before the gateway", "before Triton"])
def test_keepalive_notices_a_connection_that_was_lost_without_a_word(
    where: str, route: Route, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with ExitStack() as stack:
        options: dict[str, Any] = {"keepalive_s": 1.0, "keepalive_permitted": True, "timeout_s": 60}
        if where == "before Triton":
            write_add_one(tmp_path, "echo")
            permitted = "--grpc-http2-min-recv-ping-interval-without-data=500"
            _, url = stack.enter_context(raw_server(tmp_path, permitted))
            proxy = stack.enter_context(Proxy(url))
        else:
            proxy, options["tls"] = request.getfixturevalue("before"), tls(route.folder, "client")
        client = stack.enter_context(Client(options=ClientOptions(endpoints=(proxy.url,), **options)))
        assert _echoes(client)
        connections = proxy.connections
        proxy.lose()
        with timed("answered_after_s"):
            assert _echoes(client)
        assert proxy.connections == connections + 1


def test_a_frozen_model_costs_its_callers_their_deadline_and_no_more(tmp_path: Path) -> None:
    write_echo(tmp_path)
    with EmbeddedServer(tmp_path, supervise=False, verify=False) as server, Client(server.grpc_url) as client:
        assert _echoes(client)
        frozen = stubs_of(server.pid, server.repository)
        for stub in frozen:
            os.kill(stub.pid, signal.SIGSTOP)
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(_echoes, client, timeout_s=0.5) for _ in range(4)]
            assert all(isinstance(call.exception(20), DeadlineExceededError) for call in calls)
        for stub in frozen:
            os.kill(stub.pid, signal.SIGCONT)
        assert wait_until(lambda: _echoes(client, timeout_s=20))
