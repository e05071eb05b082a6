"""One point of a curve: a load, and who spent how much processor time on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2

from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from radserve_server import EmbeddedServer

CLIENT = Path(__file__).with_name("growth_client.py")
PROCESSES = 2
SECONDS, TURNS = 0.8, 5
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
Parts = dict[str, float]


@dataclass(frozen=True)
class Turn:
    """What one turn measured.

    Attributes:
        rate: Inputs answered per second.
        latencies_ms: Of each request.
        cpu_us: Processor time for each input, by kind of process.
        cores: Cores that all of them kept at work.
        others: Cores that anything else on the machine did: noise, if there are any.
        server: Means of Triton's own statistics of the network's step.
    """

    rate: float
    latencies_ms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    cpu_us: Parts = field(default_factory=dict)
    cores: float = 0.0
    others: float = 0.0
    server: Parts = field(default_factory=dict)


class Point:
    """The turns of one point; figures are medians over turns, percentiles those of all turns' answers together."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.turns = turns
        self.rate = median(turn.rate for turn in turns)
        self.latencies_ms = np.sort(np.concatenate([turn.latencies_ms for turn in turns]))

    @property
    def n(self) -> int:
        """Answers."""
        return len(self.latencies_ms)

    def percentile_ms(self, percent: float) -> float:
        """Latency."""
        return float(np.percentile(self.latencies_ms, percent, method="inverted_cdf"))

    @property
    def cores(self) -> float:
        """Cores that were at work."""
        return median(turn.cores for turn in self.turns)

    @property
    def others(self) -> float:
        """Cores that were at work for something else."""
        return median(turn.others for turn in self.turns)

    def cpu_us(self, who: str) -> float:
        """Processor time for each input."""
        return median(turn.cpu_us[who] for turn in self.turns)

    def server(self, what: str) -> float:
        """Of Triton's statistics."""
        return median(turn.server[what] for turn in self.turns)

    def against(self, other: Point) -> str:
        """The median of the ratios of the same turns, with their least and greatest."""
        ratios = [one.rate / base.rate for one, base in zip(self.turns, other.turns, strict=True)]
        return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def interleaved(ways: Mapping[str, Callable[[], Turn]], turns: int = TURNS) -> dict[str, Point]:
    """All ways in turns, so that whatever else the machine does meets all alike."""
    taken: dict[str, list[Turn]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name].append(ways[name]())
    return {name: Point(found) for name, found in taken.items()}


@contextmanager
def load(
    url: str,
    model: str,
    request: Path,
    *,
    servers: Sequence[EmbeddedServer],
    rows: int = 1,
    in_flight: int,
    connections: int = PROCESSES,
    seconds: float = SECONDS,
    others: Mapping[str, int] | None = None,
) -> Iterator[Callable[[], Turn]]:
    """Connected clients; each call measures one turn.

    Args:
        url: Where they connect.
        model: The public model, for the statistics.
        request: File of the serialised request.
        servers: Who answers.
        rows: Inputs in a request.
        in_flight: Requests in flight, over all processes.
        connections: Connections, over all processes.
        seconds: Of a turn.
        others: Further processes that take part, by name.
    """
    with ExitStack() as running:
        clients = []
        processes = min(PROCESSES, in_flight, connections)
        for number in range(processes):
            shares = [str((total + number) // processes) for total in (connections, in_flight)]
            clients.append(running.enter_context(_Client([url, str(request), *shares])))
        for client in clients:
            assert client.line() == "ready\n"
        groups = {"clients": [client.process.pid for client in clients]}
        groups |= {name: [pid] for name, pid in (others or {}).items()}

        def measured() -> Turn:
            before, began = _spent(servers, model, groups), perf_counter()
            for client in clients:
                client.tell(f"{seconds}\n")
            told = [json.loads(client.line()) for client in clients]
            taken, after = perf_counter() - began, _spent(servers, model, groups)
            assert not any(one["failed"] for one in told), [one["failed"] for one in told]
            spent = {name: after[name] - value for name, value in before.items()}
            cpu = {name: spent[name] for name in (*groups, "server", "stubs")}
            return Turn(
                rate=sum(len(one["latencies_us"]) / one["seconds"] for one in told) * rows,
                latencies_ms=np.concatenate([one["latencies_us"] for one in told]) / 1e3,
                cpu_us={name: value / max(1, spent["inputs"]) * 1e6 for name, value in cpu.items()},
                cores=sum(cpu.values()) / taken,
                others=max(0.0, spent["machine"] - sum(cpu.values())) / taken,
                server={
                    "batch": spent["inputs"] / max(1, spent["executions"]),
                    "queue_ms": spent["queue_s"] / max(1, spent["requests"]) * 1e3,
                    "compute_ms": spent["compute_s"] / max(1, spent["requests"]) * 1e3,
                },
            )

        yield measured


class _Client:
    """A process of ``growth_client``."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, str(CLIENT), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.communicate()

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def _spent(servers: Sequence[EmbeddedServer], model: str, groups: Mapping[str, Sequence[int]]) -> Parts:
    """Processor time by kind of process, and Triton's totals, until now."""
    found = {name: sum(map(cpu_s, pids)) for name, pids in groups.items()}
    found["machine"] = _machine_s()
    found["server"] = sum(cpu_s(server.pid) for server in servers)
    found["stubs"] = sum(cpu_s(pid) for server in servers for pid in stub_pids(server))
    found |= dict.fromkeys(("inputs", "executions", "requests", "queue_s", "compute_s"), 0.0)
    for server in servers:
        with triton.InferenceServerClient(server.grpc_url) as client:
            (one,) = client.get_inference_statistics(f"{model}_pipeline").model_stats
        found["inputs"] += one.inference_count
        found["executions"] += one.execution_count
        found["requests"] += one.inference_stats.success.count
        found["queue_s"] += one.inference_stats.queue.ns / 1e9
        found["compute_s"] += one.inference_stats.compute_infer.ns / 1e9
    return found


def stub_pids(server: EmbeddedServer) -> list[int]:
    """The processes that run the server's models."""
    return [stub.pid for stub in stubs_of(server.pid, server.repository)]


def cpu_s(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _machine_s() -> float:
    """Processor time of all that runs on this machine."""
    ticks = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) * _TICK_S  # idle, waiting for a disk


def memory_mb(*pids: int) -> float:
    """Memory of processes, what several share counted once over all that share it (proportional set size)."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii") for pid in pids]
    return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("Pss:")) / 1024


def write_request(folder: Path, model: str, size: int, rows: int = 1) -> Path:
    """A file of one serialised request: random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (rows, size, size, 1), dtype=np.uint8)
    request: Any = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="PIXELS", datatype="UINT8", shape=pixels.shape)
    request.raw_input_contents.append(pixels.tobytes())
    path = folder / f"{model}_{size}_{rows}.bin"
    path.write_bytes(request.SerializeToString())
    return path
