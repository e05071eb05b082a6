"""The real Envoy with a rendered configuration, certificates and tokens."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from support.deployment import run, tool
from support.servers import wait_until, write_certificate

from radserve import TLS
from radserve_server.envoy import Envoy
from radserve_server.gateway import Gateway
from radserve_server.ports import choose_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from radserve_server.gateway import Canary

CLIENTS = ("client", "another", "radserve-operator")


def write_certificates(folder: Path) -> None:
    """An authority, a gateway, its clients; a stranger, whom another authority knows, and an expired client."""
    for name in ("ca", "other-ca"):
        write_certificate(folder, name)
    for name in ("gateway", *CLIENTS):
        write_certificate(folder, name, "ca")
    write_certificate(folder, "stranger", "other-ca")
    write_certificate(folder, "replica", "ca", "127.0.0.1,DNS:triton")
    openssl, request = tool("openssl"), folder / "expired.csr"
    run(
        openssl,
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        folder / "expired.key",
        "-out",
        request,
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    )
    authority = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial", "-copy_extensions", "copy")
    run(openssl, "x509", "-req", "-in", request, *authority, "-days", "-1", "-out", folder / "expired.pem")
    place(folder, "gateway")


def place(folder: Path, name: str, where: str = "placed") -> None:
    """Put a certificate where the gateway reads it, as a renewal does: each file at once."""
    (folder / where).mkdir(exist_ok=True)
    for source, target in ((f"{name}.key", "tls.key"), (f"{name}.pem", "tls.crt"), ("ca.pem", "ca.crt")):
        new = folder / "new"
        shutil.copy(folder / source, new)
        new.replace(folder / where / target)


def tls(folder: Path, name: str | None) -> TLS:
    """What a client trusts, and the certificate that it shows."""
    ca = folder / "ca.pem"
    return TLS.from_files(ca, folder / f"{name}.key", folder / f"{name}.pem") if name else TLS.from_files(ca)


RunningEnvoy = Envoy


def of_clients(gateway: RunningEnvoy, name: str) -> float:
    """One of Envoy's statistics of its clients."""
    start = f'envoy_http_{name}{{envoy_http_conn_manager_prefix="gateway"}} '
    (line,) = (line for line in gateway.read("/stats/prometheus").splitlines() if line.startswith(start))
    return float(line.removeprefix(start))


def peak_mib(gateway: RunningEnvoy) -> int:
    """The most memory that a gateway ever held."""
    lines = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) // 1024


@contextmanager
def envoy(
    folder: Path, replicas: list[str], canary: Canary, *, healthy: int | None = None, **settings: Any
) -> Iterator[RunningEnvoy]:
    """Run a gateway of some replicas until all of them are healthy.

    Args:
        folder: With the certificates of ``write_certificates``.
        replicas: ``host:port`` of each.
        canary: As in ``Gateway``.
        healthy: How many are to be healthy, if not all.
        settings: As there.
    """
    pairs = tuple((url.rpartition(":")[0], int(url.rpartition(":")[2])) for url in replicas)
    own = folder / f"envoy-{time.monotonic_ns()}"
    ports = dict(zip(("port", "metrics_port", "admin_port"), choose_ports("127.0.0.1", 0, 0, 0), strict=True))
    loopback = {"address": "127.0.0.1", "metrics_address": "127.0.0.1"}
    where = {"folder": str(own), "certificates": str(folder / "placed")}
    quick = {"canary_period_s": 0.5, "canary_timeout_s": 2.0}
    gateway = Gateway(**{"replicas": pairs, "canary": canary, **ports, **loopback, **where, **quick, **settings})
    running = Envoy(gateway, access_log=True)
    running.start()
    try:
        expected = len(replicas) if healthy is None else healthy
        ready = wait_until(lambda: running.statistic("membership_healthy") == expected)
        assert ready, running.last_line()
        yield running
    finally:
        running.stop()


def write_issuer(folder: Path) -> Path:
    """An identity provider's key, ``issuer.key``; returns the file of its public one, as a JWKS."""
    openssl, key = tool("openssl"), folder / "issuer.key"
    run(openssl, "genrsa", "-out", key, "2048")
    modulus = run(openssl, "rsa", "-in", key, "-noout", "-modulus").stdout.strip().partition("=")[2]
    public = {"kty": "RSA", "alg": "RS256", "kid": "1", "n": _base64(bytes.fromhex(modulus)), "e": "AQAB"}
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps({"keys": [public]}))
    return jwks


def token(folder: Path, key: str = "issuer", **claims: object) -> str:
    """A token of that provider, or one that another key signed."""
    all_claims = {"iss": "hospital", "aud": "radserve", "sub": "ris", "exp": int(time.time()) + 600} | claims
    body = {name: claim for name, claim in all_claims.items() if claim is not None}
    head = {"alg": "RS256", "kid": "1", "typ": "JWT"}
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
    command = [tool("openssl"), "dgst", "-sha256", "-sign", str(folder / f"{key}.key")]
    signature = subprocess.run(command, input=signed.encode(), check=True, capture_output=True).stdout  # noqa: S603 - ours
    return f"{signed}.{_base64(signature)}"


def unsigned(signed: str) -> str:
    """A token that claims to need no signature (RFC 8725, section 3.2)."""
    return f"{_base64(json.dumps({'alg': 'none'}).encode())}.{signed.split('.')[1]}."


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


class _Between(grpc.GenericRpcHandler):  # type: ignore[type-arg] # takes none when run
    """Hands calls on to a server, once a function has looked at them."""

    def __init__(self, channel: grpc.Channel, look: Callable[[bytes, grpc.ServicerContext], None]) -> None:
        self._channel, self._look = channel, look

    def service(self, handler_call_details: Any) -> Any:
        """What answers a call."""
        method = self._channel.unary_unary(handler_call_details.method, bytes, bytes)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self._look(request, context)
            return bytes(method(request))

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def between(target: str, look: Callable[[bytes, grpc.ServicerContext], None]) -> Iterator[str]:
    """``host:port`` of a replica that hands calls on to another one, once ``look`` has seen and not ended them."""
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((_Between(channel, look),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@contextmanager
def unavailable(target: str) -> Iterator[str]:
    """``host:port`` of a replica that passes its canary and answers nobody."""

    def refuse(request: bytes, context: grpc.ServicerContext) -> None:
        if b"\x1a\x06canary" not in request:
            context.abort(grpc.StatusCode.UNAVAILABLE, "out of order")

    with between(target, refuse) as address:
        yield address
