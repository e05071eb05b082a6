"""Who may speak to the gateway, and whom it asks about that: the real Envoy, and an identity provider."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from support.echo import furnished
from support.envoys import envoy, tls, token, write_issuer
from support.servers import wait_until, write_certificate

from radserve import Client, RadserveError, ServerUnavailableError, UnauthenticatedError
from radserve.options import ClientOptions, Secret
from radserve_server import EmbeddedServer
from radserve_server.gateway import Tokens, canary_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from support.envoys import RunningEnvoy

    Behind = Callable[..., AbstractContextManager[RunningEnvoy]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("identity"))


@pytest.fixture(scope="module")
def behind(folder: Path) -> Iterator[Behind]:
    """A function that starts a gateway of one replica, with further settings."""
    with EmbeddedServer(folder / "models", supervise=False, verify=False) as replica:
        yield partial(envoy, folder, [replica.grpc_url], canary_of(folder / "models", "echo"))


@pytest.fixture
def keys_url(folder: Path) -> Iterator[str]:
    """Where an identity provider tells its keys, in IPv4 alone."""
    keys = write_issuer(folder).read_bytes()
    write_certificate(folder, "provider", "ca", "127.0.0.1,DNS:localhost")

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(keys)))
            self.end_headers()
            self.wfile.write(keys)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "provider.pem", folder / "provider.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"https://localhost:{server.server_address[1]}/keys"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _asking(gateway: RunningEnvoy, folder: Path, name: str | None, shown: str | None) -> Iterator[Client]:
    given = Secret.from_environment("TOKEN", {"TOKEN": shown}) if shown else None
    with Client(options=ClientOptions(endpoints=(gateway.url,), tls=tls(folder, name), token=given)) as client:
        yield client


def _error(gateway: RunningEnvoy, folder: Path, name: str | None, shown: str | None) -> type[RadserveError] | None:
    with _asking(gateway, folder, name, shown) as client:
        try:
            assert client.model("echo", timeout_s=10).contract.name == "echo"
        except RadserveError as error:
            return type(error)
    return None


def test_the_keys_of_tokens_are_asked_of_the_identity_provider(behind: Behind, folder: Path, keys_url: str) -> None:
    tokens = Tokens(issuer="hospital", audience="radserve", jwks=keys_url, ca=str(folder / "ca.pem"))
    with behind(tokens=tokens, mutual_tls=False) as gateway:
        assert wait_until(lambda: _error(gateway, folder, None, token(folder)) is None, 20)
        assert _error(gateway, folder, None, token(folder, "other-ca")) is UnauthenticatedError
        assert _error(gateway, folder, None, None) is UnauthenticatedError


def test_keys_of_whom_no_authority_knows_are_not_taken(behind: Behind, folder: Path, keys_url: str) -> None:
    tokens = Tokens(issuer="hospital", audience="radserve", jwks=keys_url, ca=str(folder / "other-ca.pem"))
    with behind(tokens=tokens, mutual_tls=False) as gateway:
        failed = 'envoy_cluster_ssl_fail_verify_error{envoy_cluster_name="identity_provider"} '
        assert wait_until(lambda: f"{failed}0" not in gateway.read("/stats/prometheus"), 20)
        assert _error(gateway, folder, None, token(folder)) is UnauthenticatedError


def test_both_a_certificate_and_a_token_may_be_a_must(behind: Behind, folder: Path) -> None:
    tokens = Tokens(issuer="hospital", audience="radserve", jwks=str(write_issuer(folder)))
    with behind(tokens=tokens) as gateway:
        assert _error(gateway, folder, "client", token(folder)) is None
        assert _error(gateway, folder, "client", None) is UnauthenticatedError
        assert _error(gateway, folder, None, token(folder)) is ServerUnavailableError
        assert _error(gateway, folder, "stranger", token(folder)) is ServerUnavailableError


def _handshake(gateway: RunningEnvoy, folder: Path, version: ssl.TLSVersion) -> tuple[str | None, str | None]:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    host, port = gateway.url.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        return encrypted.version(), encrypted.selected_alpn_protocol()


def test_no_older_tls_is_spoken(behind: Behind, folder: Path) -> None:
    with behind() as gateway:
        assert _handshake(gateway, folder, ssl.TLSVersion.TLSv1_3) == ("TLSv1.3", "h2")
        with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
            _handshake(gateway, folder, ssl.TLSVersion.TLSv1_2)
