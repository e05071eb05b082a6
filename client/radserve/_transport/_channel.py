"""How to connect: host and port, TLS, message limits, keepalive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from radserve.errors import InputError
from radserve.options._address import is_loopback

if TYPE_CHECKING:
    from radserve.options import TLS, ClientOptions


def check_address(url: str, options: ClientOptions) -> None:
    """Refuse an address that would carry patient data as plain text, or shared memory to another host.

    Raises:
        InputError: It is so.
    """
    host = url.rpartition(":")[0]
    if options.tls is None and not options.insecure and not is_loopback(host):
        msg = (
            f"{host} is not this machine and the connection would not be encrypted:"
            " give tls=TLS.from_files(...) (--tls-ca), or insecure=True (--insecure) if the network is trusted"
        )
        raise InputError(msg)
    if options.shared_memory and not is_loopback(host):
        msg = f"shared_memory is for servers on this host, {host} is another: leave it out"
        raise InputError(msg)


def open_channel(url: str, options: ClientOptions, tls: TLS | None, module: Any) -> Any:  # noqa: ANN401 - two kinds
    """Make a channel; it connects on the first call.

    Args:
        url: Where to; checked before.
        options: Its limits.
        tls: The certificates as they are now.
        module: ``grpc`` or ``grpc.aio``.

    Returns:
        A channel of that module.
    """
    arguments = channel_options(options)
    if tls is None:
        return module.insecure_channel(url, options=arguments)
    credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
    return module.secure_channel(url, credentials, options=arguments)


def channel_options(options: ClientOptions) -> list[tuple[str, int]]:
    """What gRPC is told of a channel."""
    return [
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", round(1000 * options.keepalive_s)),
        ("grpc.keepalive_timeout_ms", 20_000),
        # The same for the pings that measure the network: while one of them is unanswered, no other is sent.
        ("grpc.http2.ping_timeout_ms", 30_000),
        # Else only two pings are sent while a call waits for its answer.
        ("grpc.http2.max_pings_without_data", 0),
        # A server that comes back is found within 2 s; gRPC's own limit is 2 minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Every client has its own connection, closed with it.
        ("grpc.use_local_subchannel_pool", 1),
        # Patient data never take a way that the environment chose: http_proxy is ignored.
        ("grpc.enable_http_proxy", 0),
    ]
