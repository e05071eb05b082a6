"""Where to connect and how: host and port, TLS, message limits, keepalive."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

import grpc

from radserve.errors import InputError

if TYPE_CHECKING:
    from radserve.options import TLS

MAX_MESSAGE_BYTES = 2**29
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})\Z")
_MAX_PORT = 65_535

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Triton answers pings closer than 5 minutes with GOAWAY.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A server that comes back is found within 2 s; gRPC's own limit is 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Every client has its own connection, closed with it.
    ("grpc.use_local_subchannel_pool", 1),
    # Patient data never take a way that the environment chose: http_proxy is ignored.
    ("grpc.enable_http_proxy", 0),
]


def open_channel(url: str, *, tls: TLS | None, insecure: bool) -> grpc.Channel:
    """Make a channel; it connects on the first call.

    Raises:
        InputError: The address is malformed, or would carry patient data as plain text.
    """
    address = _ADDRESS.match(url) if isinstance(url, str) else None
    if address is None or not 0 < int(address["port"]) <= _MAX_PORT:
        msg = 'give the server as "host:port" of its gRPC service, for example "localhost:8001"'
        raise InputError(msg)
    if tls is not None:
        credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
        return grpc.secure_channel(url, credentials, options=_OPTIONS)
    if not insecure and not _is_loopback(address["host"]):
        msg = (
            f"{address['host']} is not this machine and the connection would not be encrypted:"
            " give tls=TLS.from_files(...) (--tls-ca), or insecure=True (--insecure) if the network is trusted"
        )
        raise InputError(msg)
    return grpc.insecure_channel(url, options=_OPTIONS)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
