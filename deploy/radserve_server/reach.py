"""Whether a server can be reached, asked below gRPC: name, port, TLS, and the certificates of both sides.

gRPC says of all of them "UNAVAILABLE".
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from radserve_server.checks import Check, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve.options import TLS

_RENEW_DAYS = 30
_ALERT_S = 0.5
_DAY_S = 86_400
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings: RFC 9113, 3.4
_FRAME_BYTES, _SETTINGS = 9, 4
_TLS_ALERT = 0x15
_VERSION_TAG, _GENERALIZED_TIME = 0xA0, 0x18
_RENEW = 'renew it: deploy/OPERATIONS.md, "Certificates"'

# OpenSSL's numbers (X509_V_ERR_*) of why this side does not trust the server.
_UNTRUSTED = {
    9: ("shows a certificate that is not valid yet", "compare the clocks of both machines"),
    10: ("shows a certificate that has expired", _RENEW),
    62: ("shows a certificate for another name", "connect by a name that stands in it, or have one made for this name"),
    64: ("shows a certificate for another name", "connect by a name that stands in it, or have one made for this name"),
}
_OTHER_AUTHORITY = (
    "shows a certificate of an authority that is not trusted here",
    "give the authority that signed it with --tls-ca",
)
# OpenSSL's words of why the server does not trust this side.
_REFUSED = {
    "CERTIFICATE_REQUIRED": ("wants a client certificate", "give --tls-cert and --tls-key"),
    "UNKNOWN_CA": (
        "refuses this client's certificate: another authority signed it",
        "have one signed by the authority that the gateway trusts (clients-ca.crt)",
    ),
    "CERTIFICATE_EXPIRED": ("refuses this client's certificate: it has expired", _RENEW),
    "WRONG_VERSION_NUMBER": ("listens, but not with TLS", "check the port, or leave --tls-ca out"),
    "RECORD_LAYER_FAILURE": ("listens, but not with TLS", "check the port, or leave --tls-ca out"),
}
_UNREACHED: dict[type[OSError], tuple[str, str]] = {
    socket.gaierror: ("cannot be found: nobody knows this name", "check its spelling, and this machine's DNS"),
    ConnectionRefusedError: (
        "refuses connections: nothing listens there",
        "start it, or check the port (gateway 8443)",
    ),
    TimeoutError: ("does not answer", "see that it runs, and that no firewall stands between"),
}


class _NoGrpcError(Exception):
    """What listens does not speak gRPC."""


def reach(name: str, url: str, tls: TLS | None, *, timeout_s: float) -> list[Check]:
    """Checks of the connection to a server; the first that is broken is the last.

    Args:
        name: How the checks begin.
        url: ``host:port``.
        tls: Certificates; None for plain text.
        timeout_s: Longest wait for each step.
    """
    host, _, port = url.rpartition(":")
    host = host.strip("[]")
    connection = f"{name}, connection"
    own = [_age(f"{name}, own certificate", _first(tls.certificate_chain))] if tls and tls.certificate_chain else []
    if any(check.status is Status.BROKEN for check in own):
        return own

    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)}
        with socket.create_connection((host, int(port)), timeout_s) as raw:
            certificate = _greet(raw, tls, host)
    except (OSError, UnicodeError, _NoGrpcError) as error:
        detail, fix = _told(error)
        return [*own, Check(connection, Status.BROKEN, f"{url} {detail}", fix)]
    found = f"{len(addresses)} address(es) of {host}, {'TLS' if tls else 'plain text'}"
    checks = [*own, Check(connection, Status.OK, found)]
    return [*checks, _age(f"{name}, certificate", certificate)] if certificate else checks


def _told(error: OSError | UnicodeError | _NoGrpcError) -> tuple[str, str]:
    """What a failure means, and the next step."""
    if isinstance(error, _NoGrpcError):
        return str(error), "check the port: the gateway's is 8443, Triton's gRPC 8001"
    if isinstance(error, UnicodeError):  # a name that cannot be one, such as a..b
        return _UNREACHED[socket.gaierror]
    if isinstance(error, ssl.SSLCertVerificationError):
        return _UNTRUSTED.get(error.verify_code, _OTHER_AUTHORITY)
    if isinstance(error, ssl.SSLError):
        unknown = (
            f"ends the TLS handshake ({error.reason or error})",
            "check authorities, names and the client's certificate; the gateway's log says more",
        )
        return next((told for word, told in _REFUSED.items() if word in (error.reason or "")), unknown)
    known = (told for kind, told in _UNREACHED.items() if isinstance(error, kind))
    hangs_up = f"hangs up ({error.strerror or error})", "check that this is the gRPC port, and whether it wants TLS"
    return next(known, hangs_up)


def _greet(raw: socket.socket, tls: TLS | None, host: str) -> bytes | None:
    """Say hello as gRPC does; the server's certificate, if it has one."""
    if tls is None:
        _exchange(raw)
        return None
    with _context(tls).wrap_socket(raw, server_hostname=host) as stream:
        # In TLS 1.3 a server refuses a client's certificate after the handshake; who writes then may never read why.
        usual = stream.gettimeout()
        stream.settimeout(_ALERT_S)
        early = b""
        with suppress(TimeoutError):
            early = stream.recv(_FRAME_BYTES)
        stream.settimeout(usual)
        _exchange(stream, early)
        return stream.getpeercert(binary_form=True)


def _exchange(stream: socket.socket, early: bytes = b"") -> None:
    stream.sendall(_PREFACE)
    answer = early or stream.recv(_FRAME_BYTES)
    if answer[:1] == bytes([_TLS_ALERT]):
        msg = "wants TLS: give --tls-ca"
        raise _NoGrpcError(msg)
    if not answer:
        msg = "hangs up: it does not speak gRPC, or wants TLS (--tls-ca)"
        raise _NoGrpcError(msg)
    if answer[3:4] != bytes([_SETTINGS]):
        msg = "listens, but does not speak gRPC"
        raise _NoGrpcError(msg)


def _context(tls: TLS) -> ssl.SSLContext:
    roots = _roots() if tls.root_certificates is None else tls.root_certificates
    context = ssl.create_default_context(cadata=roots.decode("ascii", "replace"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # gRPC is no stricter
    context.set_alpn_protocols(["h2"])
    if tls.certificate_chain is not None and tls.private_key is not None:
        with _as_file(tls.certificate_chain) as chain, _as_file(tls.private_key) as key:
            context.load_cert_chain(chain, key)
    return context


def _roots() -> bytes:
    """The authorities that gRPC trusts where none are named: not those of the operating system, as Python does."""
    with suppress(OSError):
        return Path(os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "")).read_bytes()
    return (resources.files("grpc") / "_cython" / "_credentials" / "roots.pem").read_bytes()


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path to bytes that never reach a disk."""
    descriptor = os.memfd_create("radserve")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _age(name: str, certificate: bytes) -> Check:
    end = not_after(certificate)
    days = int((end.timestamp() - time.time()) // _DAY_S)
    if days < 0:
        return Check(name, Status.BROKEN, f"expired on {end:%Y-%m-%d}", _RENEW)
    if days >= _RENEW_DAYS:
        return Check(name, Status.OK, f"expires in {days} days, on {end:%Y-%m-%d}")
    return Check(name, Status.WARNING, f"expires in {days} day(s), on {end:%Y-%m-%d}", _RENEW)


def _first(chain: bytes) -> bytes:
    """The first certificate of a PEM file."""
    end = "-----END CERTIFICATE-----"
    text = chain.decode("ascii", "replace")
    begin = text.index("-----BEGIN CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(text[begin : text.index(end) + len(end)])


def not_after(certificate: bytes) -> datetime:
    """When a certificate expires.

    Args:
        certificate: As DER; see RFC 5280, 4.1.
    """
    ((_, whole),) = _elements(certificate)
    fields = [content for tag, content in _elements(_elements(whole)[0][1]) if tag != _VERSION_TAG]
    _serial, _signature, _issuer, validity, *_ = fields
    tag, end = _elements(validity)[1]
    form = "%Y%m%d%H%M%SZ" if tag == _GENERALIZED_TIME else "%y%m%d%H%M%SZ"
    return datetime.strptime(end.decode("ascii"), form).replace(tzinfo=timezone.utc)


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """Tags and contents of the elements in DER, one after the other."""
    found = []
    while der:
        start, length = 2, der[1]
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        found.append((der[0], der[start : start + length]))
        der = der[start + length :]
    return found
