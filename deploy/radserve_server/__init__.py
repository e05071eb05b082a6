"""The embedded Triton: find it, prepare it, start it, supervise it, stop it.

For development, tests and evaluation on loopback. Production runs NVIDIA's
container on the same model repository.
"""

from radserve_server.discover import Problem, TritonInstallation, find_triton, problems
from radserve_server.embedded import EmbeddedServer
from radserve_server.supervise import Event, EventKind

__all__ = ["EmbeddedServer", "Event", "EventKind", "Problem", "TritonInstallation", "find_triton", "problems"]
