"""Which addresses are this machine's own: to all others, plain text needs somebody's word."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine: ``localhost``, ``127.0.0.1``, ``[::1]``."""
    host = host.strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
