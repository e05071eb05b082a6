"""Ports that servers of this machine listen to."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from radserve.errors import ServerStartError


def choose_ports(host: str, *asked: int) -> list[int]:
    """The ports asked for, with a free one in place of each 0.

    Args:
        host: The address to listen on.
        asked: Ports; all of them differ, except 0.

    Raises:
        ServerStartError: One of them cannot be used.
    """
    with ExitStack() as held:
        ports = []
        for port in asked:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                listener.listen()
            except OSError as error:
                msg = f"port {port} on {host} cannot be used ({error.strerror}): stop what uses it, or choose another"
                raise ServerStartError(msg) from error
            ports.append(listener.getsockname()[1])
    return ports
