"""Hostile clients of the gateway, and what well-behaved ones beside them notice: nothing."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from support.bystanders import Bystanders
from support.echo import furnished, two_replicas
from support.envoys import RunningEnvoy, envoy, of_clients, peak_mib
from support.figures import tell, timed
from support.hostile import INFER, PREFACE, Calls, connected, flood, frame, headers, is_closed, unencrypted
from support.servers import wait_until
from tritonclient.grpc import service_pb2

from radserve_server.gateway import Gateway, canary_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_MIB = 2**20
_SERVICE = INFER.rpartition("/")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="module")
def behind(folder: Path) -> Iterator[Callable[..., AbstractContextManager[RunningEnvoy]]]:
    """A function that starts a gateway of two replicas which limits nobody's rate, with further settings."""
    canary, rate = canary_of(folder / "models", "echo"), {"requests_per_s": 10**6, "burst": 10**6}
    with two_replicas(folder) as servers:
        yield partial(envoy, folder, [one.grpc_url for one in servers], canary, **rate)


@pytest.fixture(scope="module")
def gateway(behind: Callable[..., AbstractContextManager[RunningEnvoy]]) -> Iterator[RunningEnvoy]:
    with behind() as running:
        yield running


_NOISE = random.Random(0).randbytes(4096)  # noqa: S311 - noise, no secret
_GARBAGE = {
    "text": b"hello\r\n",
    "HTTP 1.1": b"GET / HTTP/1.1\r\nHost: triton\r\n\r\n",
    "noise": _NOISE,
    "half of HTTP 2": PREFACE + _NOISE,
}


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("garbage", _GARBAGE)
def test_garbage_ends_the_connection(gateway: RunningEnvoy, folder: Path, garbage: str, *, encrypted: bool) -> None:
    with Bystanders(gateway.url, folder) as bystanders:
        opened = connected(gateway.url, folder) if encrypted else unencrypted(gateway.url)
        with opened as connection:
            connection.sendall(_GARBAGE[garbage])
            assert is_closed(connection)
        bystanders.see()


@pytest.mark.parametrize("protocol", ["http/1.1", "h3"])
def test_who_speaks_another_protocol_is_not_served(gateway: RunningEnvoy, folder: Path, protocol: str) -> None:
    with connected(gateway.url, folder, alpn=protocol) as connection:
        assert connection.selected_alpn_protocol() is None
        connection.sendall(_GARBAGE["HTTP 1.1"])
        assert is_closed(connection)


@pytest.mark.parametrize("name", [None, "stranger", "expired"])
def test_who_comes_again_and_again_without_a_valid_certificate_is_not_served(
    gateway: RunningEnvoy, folder: Path, name: str | None
) -> None:
    with Bystanders(gateway.url, folder) as bystanders:
        for _ in range(30):
            with connected(gateway.url, folder, name) as connection:
                assert is_closed(connection)
        bystanders.see()


def test_who_asks_again_and_again_for_what_nobody_may_is_not_felt(gateway: RunningEnvoy, folder: Path) -> None:
    with Bystanders(gateway.url, folder) as bystanders, _channel(gateway, folder) as channel:
        load = channel.unary_unary(f"{_SERVICE}/RepositoryModelUnload", bytes, bytes)
        for _ in range(50):
            with pytest.raises(grpc.RpcError) as refused:
                load(service_pb2.RepositoryModelUnloadRequest(model_name="echo").SerializeToString(), timeout=10)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        bystanders.see()


@pytest.mark.parametrize("kind", ["pings", "settings", "resets", "continuations", "nothings"])
def test_a_flood_of_frames_ends_the_connection(gateway: RunningEnvoy, folder: Path, kind: str) -> None:
    with Bystanders(gateway.url, folder) as bystanders:
        with (
            connected(gateway.url, folder) as connection,
            pytest.raises(OSError, match=r"EOF|reset|pipe|closed"),
            timed("ended_after_s"),
        ):
            _drown(connection, kind)
        bystanders.see()


def test_a_message_of_a_gib_is_refused_before_it_is_held(gateway: RunningEnvoy, folder: Path) -> None:
    before, refused = peak_mib(gateway), of_clients(gateway, "downstream_rq_too_large")
    with Bystanders(gateway.url, folder) as bystanders, connected(gateway.url, folder) as connection:
        calls = Calls(connection)
        calls.begin(1)
        limit = Gateway.max_request_bytes
        assert limit <= calls.send(1, 1024 * _MIB) < limit + 8 * _MIB
        bystanders.see()
    assert calls.ended == {1}
    assert of_clients(gateway, "downstream_rq_too_large") == refused + 1
    assert peak_mib(gateway) - before < 2 * limit // _MIB


@pytest.mark.chaos  # a GiB of memory
def test_who_sends_many_large_messages_loses_them_and_nobody_else_any(
    behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path
) -> None:
    def send_on(url: str) -> None:
        with connected(url, folder) as connection:
            calls, streams = Calls(connection), range(1, 41, 2)
            for stream in streams:
                calls.begin(stream)
            while len(calls.ended) < len(streams):
                for stream in streams:
                    calls.send(stream, 2 * _MIB)

    with behind() as gateway, Bystanders(gateway.url, folder) as bystanders:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(send_on, gateway.url) for _ in range(4)]:
                done.result(120)
        bystanders.see(500)
        tell(gateway_mib=peak_mib(gateway))
        assert peak_mib(gateway) < Gateway.max_heap_bytes // _MIB


_SLOW = {
    "silent": b"",
    "in the preface": PREFACE[:7],
    "after the preface": PREFACE + frame(4, 0, 0),
    "in the head": PREFACE + frame(4, 0, 0) + headers(1, flags=0),
    "in a frame": PREFACE + frame(4, 0, 0) + headers(1)[:20],
    "in the message": PREFACE + frame(4, 0, 0) + headers(1) + frame(0, 0, 1, b"\0\0\0\0\xff"),
    "in reading": PREFACE
    + frame(4, 0, 0, b"\0\x04\0\0\0\0")
    + headers(1, f"{_SERVICE}/ServerLive")
    + frame(0, 1, 1, bytes(5)),
}


@pytest.mark.chaos  # the gateway's own patience, 80 s
def test_slow_clients_are_let_go_and_nobody_else_waits(
    behind: Callable[..., AbstractContextManager[RunningEnvoy]], folder: Path
) -> None:
    each = 40
    with behind() as gateway, Bystanders(gateway.url, folder) as bystanders, ExitStack() as stack:
        own = of_clients(gateway, "downstream_cx_active")
        slow: dict[str, list[socket.socket]] = {
            kind: [stack.enter_context(connected(gateway.url, folder)) for _ in range(each)] for kind in _SLOW
        }
        slow["not encrypted"] = [stack.enter_context(unencrypted(gateway.url)) for _ in range(each)]
        for kind, said in _SLOW.items():
            for connection in slow[kind]:
                connection.sendall(said)
        before = peak_mib(gateway)
        ended, trickles = threading.Event(), slow["in the message"]

        def trickle() -> None:
            while not ended.wait(1):
                for connection in trickles:
                    with suppress(OSError):
                        connection.sendall(frame(0, 0, 1, b"\0"))

        with ThreadPoolExecutor(1) as pool:
            trickling = pool.submit(trickle)
            try:
                for kind in ("not encrypted", "in the preface", "after the preface", "in the head", "in a frame"):
                    assert all(is_closed(one, 80) for one in slow[kind]), kind
                assert wait_until(lambda: of_clients(gateway, "downstream_rq_active") <= 3, 80)
            finally:
                ended.set()
            trickling.result()
        assert all(is_closed(one, 80) for one in (*slow["in reading"], *trickles))
        assert of_clients(gateway, "downstream_cx_active") == own + each  # the silent, for 5 minutes
        bystanders.see(500)
        tell(gateway_mib=peak_mib(gateway))
        assert peak_mib(gateway) - before < 64


def _channel(gateway: RunningEnvoy, folder: Path) -> grpc.Channel:
    texts = [(folder / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem")]
    return grpc.secure_channel(gateway.url, grpc.ssl_channel_credentials(*texts))


def _drown(connection: socket.socket, kind: str) -> None:
    frames = flood(kind)
    for _ in range(1000):
        connection.sendall(b"".join(islice(frames, 1000)))


def _tensor(**wrong: Any) -> bytes:
    """A request to ``echo`` that is right but for what is given."""
    given: dict[str, Any] = {"name": "X", "datatype": "FP32", "shape": [1, 4]} | wrong
    request = service_pb2.ModelInferRequest(model_name=given.pop("model", "echo"))
    content = given.pop("content", bytes(16))
    request.inputs.add(**given)
    request.raw_input_contents.append(content)
    return bytes(request.SerializeToString())


_WRONG = {
    "a name": (_tensor(name="Z"), "INVALID_ARGUMENT"),
    "a datatype": (_tensor(datatype="INT32"), "INVALID_ARGUMENT"),
    "no datatype": (_tensor(datatype="FP99"), "INVALID_ARGUMENT"),
    "a rank": (_tensor(shape=[1, 1, 4]), "INVALID_ARGUMENT"),
    "a negative length": (_tensor(shape=[1, -4]), "INVALID_ARGUMENT"),
    "an enormous shape": (_tensor(shape=[2**40, 2**40]), "INVALID_ARGUMENT"),
    "too little content": (_tensor(content=bytes(15)), "INVALID_ARGUMENT"),
    "too much content": (_tensor(content=bytes(4096)), "INVALID_ARGUMENT"),
    "a model": (_tensor(model="nobody's"), "NOT_FOUND"),
    "a message": (_NOISE[:64], "INTERNAL"),
}


@pytest.mark.parametrize("what", _WRONG)
def test_what_is_wrong_is_refused_again_and_again(gateway: RunningEnvoy, folder: Path, what: str) -> None:
    request, code = _WRONG[what]
    with Bystanders(gateway.url, folder) as bystanders, _channel(gateway, folder) as channel:
        infer = channel.unary_unary(INFER, bytes, bytes)
        for _ in range(50):
            with pytest.raises(grpc.RpcError) as refused:
                infer(request, timeout=10)
            assert refused.value.code().name == code
        bystanders.see()
    assert gateway.statistic("outlier_detection_ejections_enforced_total") == 0
