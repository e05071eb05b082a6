"""radserve's embedded Triton with one model; PEER_REPOSITORY names its repository."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from radserve_server import EmbeddedServer

with EmbeddedServer(
    Path(os.environ["PEER_REPOSITORY"]),
    grpc_port=int(os.environ["PEER_GRPC_PORT"]),
    http_port=int(os.environ["PEER_PORT"]),
    verify=False,  # with another queue the configuration is not what was published
):
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
