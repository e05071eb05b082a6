"""The embedded Triton: find it, prepare it, start it, supervise it, stop it.

For development, tests and evaluation on loopback. Production runs NVIDIA's
container on the same model repository.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from radserve_server.cluster import Cluster
    from radserve_server.discover import Problem, TritonInstallation, find_triton, problems
    from radserve_server.embedded import EmbeddedServer
    from radserve_server.supervise import Event, EventKind

__all__ = [
    "Cluster",
    "EmbeddedServer",
    "Event",
    "EventKind",
    "Problem",
    "TritonInstallation",
    "find_triton",
    "problems",
]

_HOMES = {"Cluster": "cluster", "EmbeddedServer": "embedded", "Event": "supervise", "EventKind": "supervise"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: the commands must show their help at once."""
    if name in __all__:
        return getattr(import_module(f"radserve_server.{_HOMES.get(name, 'discover')}"), name)
    msg = f"module {__name__} has no attribute {name}"
    raise AttributeError(msg)
