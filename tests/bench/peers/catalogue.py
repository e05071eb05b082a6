"""The servers that are compared, each with its fastest sensible settings that were found."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.environments import python_of
from bench.peers.wire import BytesGrpc, KServeGrpc, RawHttp

if TYPE_CHECKING:
    from bench.peers.graphs import Graph
    from bench.peers.wire import Wire

HERE = Path(__file__).parent
SERVERS = HERE / "servers"
OURS, WITHOUT_QUEUE = "ours", "ours_without_queue"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server that is not ours.

    Attributes:
        name: Of its environment and lock file.
        title: Its row.
        packages: Whose versions are told.
        settings: What was chosen, for the reader.
        arguments: Of its environment's Python; ``{port}`` and ``{servers}`` are filled in.
        wire: How it is asked.
        replicas: How many ports it listens on, the given one and those that follow.
        systems_python: Whether it needs the system's Python.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    settings: str
    arguments: str
    wire: Wire
    replicas: int = 1
    systems_python: bool = False

    def command(self, port: int) -> list[str]:
        """What starts it; installs it first."""
        filled = [word.format(port=port, servers=SERVERS) for word in self.arguments.split()]
        return [str(python_of(self.name, systems=self.systems_python)), *filled]


_UVICORN = (
    "--app-dir {servers} --host 127.0.0.1 --port {port} --workers 2 --loop uvloop --http httptools"
    " --log-level warning --no-access-log"
)

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="asgi",
            title="bare ASGI function",
            packages=("uvicorn", "uvloop", "httptools"),
            settings="uvicorn, 2 workers, uvloop, httptools; raw bytes; ONNX Runtime called in the loop",
            arguments=f"-m uvicorn asgi:app {_UVICORN} --lifespan off --ws none",
            wire=RawHttp(),
        ),
        Peer(
            name="fastapi",
            title="FastAPI",
            packages=("fastapi", "uvicorn", "uvloop", "httptools"),
            settings="uvicorn as above; async endpoint, raw bytes; ONNX Runtime called in the loop",
            arguments=f"-m uvicorn fast:app {_UVICORN}",
            wire=RawHttp(),
        ),
        Peer(
            name="ray",
            title="Ray Serve",
            packages=("ray", "uvicorn"),
            settings="2 replicas, throughput-optimised, asked straight, one by each client process; raw bytes",
            arguments="{servers}/rays.py",
            wire=RawHttp(),
            replicas=2,
        ),
        Peer(
            name="bentoml",
            title="BentoML",
            packages=("bentoml", "starlette", "uvicorn"),
            settings="2 workers; raw bytes by a mounted ASGI route, as its own endpoints read JSON, forms or files;"
            " neither access log nor metrics",
            arguments="-m bentoml serve bento:Served --working-dir {servers} --host 127.0.0.1 --port {port}",
            wire=RawHttp("/raw/"),
        ),
        Peer(
            name="litserve",
            title="LitServe",
            packages=("litserve", "fastapi", "uvicorn"),
            settings="2 workers, 2 API servers, fast queue; raw bytes",
            arguments="{servers}/lit.py",
            wire=RawHttp(),
        ),
        Peer(
            name="mlserver",
            title="MLServer",
            packages=("mlserver", "grpcio"),
            settings="gRPC, custom runtime, 2 parallel workers; pixels and outputs as bytes, which it need not unpack",
            arguments="{servers}/mls.py",
            wire=BytesGrpc(),
        ),
        Peer(
            name="pytriton",
            title="PyTriton",
            packages=("nvidia-pytriton",),
            settings="gRPC, 2 decorated functions, dynamic batching",
            arguments="{servers}/decorated.py",
            wire=KServeGrpc(),
            systems_python=True,
        ),
    )
}


def environment(name: str, graph: Graph, rows: int, port: int, grpc_port: int) -> dict[str, str]:
    """What a server is told."""
    return {
        "PEER_GRAPH": str(graph.path),
        "PEER_MODEL": graph.model,
        "PEER_REPOSITORY": str(graph.without_queue if name == WITHOUT_QUEUE else graph.repository),
        "PEER_ROWS": str(rows),
        "PEER_PORT": str(port),
        "PEER_GRPC_PORT": str(grpc_port),
        "PYTHONPATH": f"{HERE}:{SERVERS}" if name in PEERS else ":".join(sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def command(name: str, port: int) -> list[str]:
    """What starts a server; a peer is installed first."""
    peer = PEERS.get(name)
    return peer.command(port) if peer else [sys.executable, str(SERVERS / "embedded.py")]
