"""Every entry of the transport's table of errors, provoked on a real Triton."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from support.faulty import SECRET, held, write_faulty, x
from support.figures import timed
from support.repositories import write_add_one
from support.servers import raw_server, wait_until, write_certificate
from tritonclient.grpc import service_pb2

from radserve import (
    TLS,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
    UnauthenticatedError,
    _codec,
)
from radserve._codec._flow import Infer
from radserve._transport import SyncTransport, _errors
from radserve.options import ClientOptions
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from radserve import Model


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_faulty(repository)
    write_add_one(repository)
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected


@pytest.fixture
def model(client: Client) -> Model:
    return client.model("faulty")


def send(client: Client, model: Model, **changed: Any) -> object:
    """Send a request that the codec would not make."""
    request = _codec.to_request(
        model.contract, x(), request_id="r", queue_timeout_s=changed.pop("queue_timeout_s", None)
    )
    head = service_pb2.ModelInferRequest.FromString(request.head)
    for name, value in changed.items():
        target = head if name == "model_version" else head.inputs[0]
        if name == "shape":
            target.shape[:] = value
        else:
            setattr(target, name, value)
    version = int(changed.get("model_version", request.version))
    request = msgspec.structs.replace(request, head=head.SerializeToString(), version=version)
    return client._session.transport.call(Infer(request=request), timeout_s=5)


def test_the_documented_table_is_that_of_the_code() -> None:
    assert _errors.retry_table() in (_errors.__doc__ or "")


def test_a_full_queue_is_overload_at_once(server: EmbeddedServer, model: Model) -> None:
    def call(_: int) -> str:
        try:
            model.infer(x(), timeout_s=60)
        except ServerOverloadedError as error:
            return str(error).split(":")[0]
        return "answered"

    with ThreadPoolExecutor(12) as pool:
        with held(model, server.repository):
            with timed("first_refused_after_s"):
                calls = [pool.submit(call, number) for number in range(12)]
                assert wait_until(lambda: any(one.done() for one in calls))
            assert {one.result() for one in calls if one.done()} == {"the queue of faulty is full"}
        assert {one.result() for one in calls} == {"the queue of faulty is full", "answered"}


def test_waiting_too_long_in_the_queue_is_overload(server: EmbeddedServer, client: Client, model: Model) -> None:
    with held(model, server.repository), pytest.raises(ServerOverloadedError, match="waited too long"):
        send(client, model, queue_timeout_s=0.05)


def test_a_version_that_is_not_there_is_not_found(client: Client, model: Model) -> None:
    told = r"^the server does not serve version 9 of faulty: see 'radserve models' \[request r\]$"
    with pytest.raises(ModelNotFoundError, match=told) as caught:
        send(client, model, model_version="9")
    assert (caught.value.model, caught.value.version, caught.value.request_id) == ("faulty", 9, "r")


def test_a_model_that_is_not_there_is_told_in_one_sentence(client: Client) -> None:
    with pytest.raises(ModelNotFoundError, match=r"^the server does not serve nobody: see 'radserve models'$"):
        client.model("nobody")


@pytest.mark.parametrize(
    "changed", [{"shape": (1, 5)}, {"datatype": "INT32"}, {"name": "Z"}], ids=["shape", "datatype", "name"]
)
def test_a_malformed_request_is_rejected_by_the_tensors_name(
    client: Client, model: Model, changed: dict[str, Any]
) -> None:
    with pytest.raises(RequestRejectedError, match=r"'[XZ]'"):
        send(client, model, **changed)


@pytest.mark.parametrize("fault", [{"error": 1}, {"raises": 1}])
def test_what_a_failing_model_says_is_not_told(model: Model, fault: dict[str, float]) -> None:
    with pytest.raises(ServerError) as caught:
        model.infer(x(**fault))
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.request_id
    assert caught.value.request_id in str(caught.value)


def test_an_exception_in_a_model_is_a_failed_inference(model: Model) -> None:
    with pytest.raises(InferenceFailedError):
        model.infer(x(raises=1))
    assert model.infer(x())["Y"].tolist() == [[1, 1, 1, 1]]


def test_an_answer_that_is_not_a_number_is_not_trusted(model: Model) -> None:
    with pytest.raises(InferenceFailedError, match="finite"):
        model.infer(x(nan=1))


def test_the_deadline_holds(server: EmbeddedServer, model: Model) -> None:
    with held(model, server.repository):  # nothing is answered before this ends
        begin = time.monotonic()
        with timed("ended_after_s"), pytest.raises(DeadlineExceededError) as caught:
            model.infer(x(), timeout_s=0.2)
        assert time.monotonic() - begin >= 0.2
    assert isinstance(caught.value, TimeoutError)


def test_a_request_too_large_is_refused_before_it_is_sent(server: EmbeddedServer, model: Model) -> None:
    large = {"X": np.zeros((2**14, 4), np.float32)}
    request = _codec.to_request(model.contract, large, request_id="r")
    transport = SyncTransport(ClientOptions(endpoints=(server.grpc_url,), max_message_bytes=2**16))
    with closing(transport), pytest.raises(InputError, match="send fewer"):
        transport.call(Infer(request=request), timeout_s=5)


def test_a_host_that_is_not_known_is_told() -> None:
    with Client("triton.invalid:8001", insecure=True) as client, pytest.raises(ServerUnavailableError, match="name"):
        client.model("add_one", timeout_s=10)


def test_what_is_no_triton_is_told(server: EmbeddedServer) -> None:
    with (
        Client(server.http_url.removeprefix("http://")) as client,
        pytest.raises(ServerUnavailableError, match="hangs up: check that this is the gRPC port"),
    ):
        client.model("add_one", timeout_s=5)


def test_closing_ends_the_calls_in_flight(server: EmbeddedServer) -> None:
    client = Client(server.grpc_url)
    with held(client.model("faulty"), server.repository) as call:
        client.close()
        with pytest.raises(ClientClosedError):
            call.result(30)


def test_a_restricted_call_is_told_apart_from_a_dead_server(tmp_path: Path) -> None:
    write_add_one(tmp_path)
    restricted = "--grpc-restricted-protocol=model-repository:key=secret"
    with raw_server(tmp_path, restricted) as (_, url), Client(url) as client:
        with pytest.raises(UnauthenticatedError, match="restricts"):
            client.models()
        with pytest.raises(UnauthenticatedError):
            client.health()
        assert list(client.health("add_one")) == ["add_one"]


def test_a_server_that_shuts_down_is_unavailable_and_answers_what_it_has(tmp_path: Path) -> None:
    write_faulty(tmp_path)
    write_add_one(tmp_path)
    with raw_server(tmp_path) as (process, url), Client(url) as client:
        model, other = client.model("faulty"), client.model("add_one")
        outcomes: list[type | None] = []

        def is_refused() -> bool:
            outcomes.append(_kind(other))
            return outcomes[-1] is ServerUnavailableError

        with held(model, tmp_path) as call:
            os.kill(process.pid, signal.SIGTERM)
            assert wait_until(is_refused), outcomes
            assert not call.done()
        assert call.result()["Y"][0, 0] > 1
        assert wait_until(lambda: is_refused() and process.ended.is_set())
    after_the_signal_was_heard = outcomes[outcomes.index(ServerUnavailableError) :]
    assert set(after_the_signal_was_heard) == {ServerUnavailableError}


def _kind(model: Model) -> type | None:
    try:
        model.infer(x(), timeout_s=30)
    except ServerError as error:
        return type(error)
    return None


def test_mutual_tls_connects(tmp_path: Path) -> None:
    write_add_one(tmp_path / "repository")
    for name, signed_by in (("ca", None), ("other", None), ("server", "ca"), ("client", "ca")):
        write_certificate(tmp_path, name, signed_by)
    arguments = ["--grpc-use-ssl-mutual=true", f"--grpc-server-cert={tmp_path}/server.pem"]
    arguments += [f"--grpc-server-key={tmp_path}/server.key", f"--grpc-root-cert={tmp_path}/ca.pem"]
    ours = {"private_key": tmp_path / "client.key", "certificate_chain": tmp_path / "client.pem"}
    with (
        raw_server(tmp_path / "repository", *arguments) as (_, url),
        Client(url, tls=TLS.from_files(tmp_path / "ca.pem", **ours)) as client,
    ):
        assert client.model("add_one").infer(x())["Y"].tolist() == [[1, 1, 1, 1]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name, signed_by in (("ca", None), ("other", None), ("server", "ca"), ("client", "ca"), ("stranger", "other")):
        write_certificate(folder, name, signed_by)
    return folder


@pytest.fixture(scope="module")
def tls_servers(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where servers listen that take plain text, TLS, and TLS from known clients alone."""
    repository = tmp_path_factory.mktemp("repository")
    write_add_one(repository)
    tls = [f"--grpc-server-cert={certificates}/server.pem", f"--grpc-server-key={certificates}/server.key"]
    mutual = ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={certificates}/ca.pem"]
    with (
        raw_server(repository) as (_, plain_url),
        raw_server(repository, "--grpc-use-ssl=true", *tls) as (_, tls_url),
        raw_server(repository, *mutual, *tls) as (_, mutual_url),
    ):
        yield {"plain": plain_url, "tls": tls_url, "mutual": mutual_url}


@pytest.mark.parametrize(
    ("place", "names", "told"),
    [
        ("tls", ("other", None), "certificate that is not trusted"),
        ("tls", None, "hangs up: .* whether it wants TLS"),
        ("plain", ("ca", None), "not with TLS"),
        ("mutual", ("ca", None), "a client certificate"),
        ("mutual", ("ca", "stranger"), "a client certificate .* or another one"),
    ],
)
def test_what_is_wrong_with_tls_is_told(
    tls_servers: dict[str, str], certificates: Path, place: str, names: tuple[str, str | None] | None, told: str
) -> None:
    tls = None
    if names:
        authority, own = names
        pair = () if own is None else (certificates / f"{own}.key", certificates / f"{own}.pem")
        tls = TLS.from_files(certificates / f"{authority}.pem", *pair)
    with (
        Client(tls_servers[place], tls=tls, timeout_s=5) as client,
        pytest.raises(ServerUnavailableError, match=told) as caught,
    ):
        client.model("add_one")
    assert tls_servers[place] in str(caught.value)


def test_a_certificate_for_another_host_is_told(certificates: Path, tmp_path: Path) -> None:
    write_add_one(tmp_path)
    write_certificate(certificates, "elsewhere", "ca", address="127.0.0.2")
    tls = [f"--grpc-server-cert={certificates}/elsewhere.pem", f"--grpc-server-key={certificates}/elsewhere.key"]
    with (
        raw_server(tmp_path, "--grpc-use-ssl=true", *tls) as (_, url),
        Client(url, tls=TLS.from_files(certificates / "ca.pem"), timeout_s=5) as client,
        pytest.raises(ServerUnavailableError, match="certificate for another host"),
    ):
        client.model("add_one")


def test_the_address_tried_last_is_told_of_a_name() -> None:
    with (
        Client("localhost:1", timeout_s=5) as client,
        pytest.raises(ServerUnavailableError, match=r"localhost:1: .* \(tried last: (127\.0\.0\.1|\[::1\]):1\)"),
    ):
        client.model("add_one")


def test_a_handshake_that_fails_otherwise_is_told(certificates: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # which says why it hangs up
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as connection, suppress(ssl.SSLError):
                        context.wrap_socket(connection, server_side=True)

        refusing = pool.submit(refuse)
        url = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            with (
                Client(url, tls=TLS.from_files(certificates / "ca.pem"), timeout_s=5) as client,
                pytest.raises(ServerUnavailableError, match="the TLS handshake failed"),
            ):
                client.model("add_one")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
        refusing.result(30)


@pytest.mark.parametrize(
    "url", ["example.org:8001", "10.0.0.1:8001", "[2001:db8::1]:8001", "127.0.0.1.example.org:8001"]
)
def test_plain_text_to_another_host_is_refused_unless_asked_for(url: str) -> None:
    with pytest.raises(InputError, match="insecure=True"):
        Client(url)
    Client(url, insecure=True).close()
    Client(url, tls=TLS()).close()


@pytest.mark.parametrize("url", ["127.0.0.1:8001", "localhost:8001", "127.1.2.3:1", "[::1]:8001"])
def test_plain_text_to_this_machine_is_allowed(url: str) -> None:
    Client(url).close()


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://localhost:8001", "localhost:0", "localhost:99999", "a b:1", 7]
)
def test_a_malformed_address_is_refused(url: Any) -> None:
    with pytest.raises(InputError, match="host:port"):
        Client(url)


def test_a_proxy_of_the_environment_is_ignored(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(server.grpc_url) as client:
        assert client.health("add_one")
