"""What of bare ONNX Runtime's throughput is left behind Triton, and what one step instead of three is worth."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from bench.bench_many import large  # noqa: F401 - a fixture
from bench.limit import bare
from bench.queues import repository_of
from bench.report import machine, table, write_section
from tritonclient.grpc import service_pb2
from tritonclient.utils import shared_memory, triton_to_np_dtype

from radserve_export.pipeline import export
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "export" / "specs"
ROUNDS, SECONDS = 7, 2.0
_FIRST_WINDOW = 65_000
SHORT_ROUNDS, SHORT_S = 5, 0.7  # where there are many models


def metadata(url: str, model: str) -> Any:
    """The model's inputs and outputs, as its server tells them."""
    with triton.InferenceServerClient(url) as client:
        return client.get_model_metadata(model)


def contents(inputs: Any, rows: int) -> list[tuple[Any, list[int], bytes]]:
    """Something for each input: random numbers, or the same short text."""
    generator = np.random.default_rng(0)
    filled = []
    for one in inputs:
        shape = [rows, *[64 if size < 0 else size for size in one.shape[1:]]]
        if one.datatype == "BYTES":
            text = b"No pneumothorax. The heart is not enlarged. Small effusion on the left."
            raw = (len(text).to_bytes(4, "little") + text) * int(np.prod(shape))
        else:
            raw = generator.integers(0, 200, shape).astype(triton_to_np_dtype(one.datatype)).tobytes()
        filled.append((one, shape, raw))
    return filled


def request_bytes(described: Any, rows: int, region: str | None = None) -> bytes:
    """A serialised request; with a region, its tensors are in shared memory."""
    request = service_pb2.ModelInferRequest(model_name=described.name)
    offset = 0
    for one, shape, raw in contents(described.inputs, rows):
        tensor = request.inputs.add(name=one.name, datatype=one.datatype, shape=shape)
        if region is None:
            request.raw_input_contents.append(raw)
        else:
            tensor.parameters["shared_memory_region"].string_param = region
            tensor.parameters["shared_memory_byte_size"].int64_param = len(raw)
            tensor.parameters["shared_memory_offset"].int64_param = offset
            offset += len(raw)
    for one in described.outputs:
        output = request.outputs.add(name=one.name)
        if region is not None:
            size = rows * int(np.prod(one.shape[1:])) * np.dtype(triton_to_np_dtype(one.datatype)).itemsize
            output.parameters["shared_memory_region"].string_param = region
            output.parameters["shared_memory_byte_size"].int64_param = size
            output.parameters["shared_memory_offset"].int64_param = offset
            offset += size
    written: bytes = request.SerializeToString()
    return written


@contextmanager
def shared(url: str, described: Any, rows: int) -> Iterator[str]:
    """A region that holds the inputs, and has room for the outputs."""
    name = f"radserve_bench_{described.name}_{url.rpartition(':')[2]}"
    raw = b"".join(part for _, _, part in contents(described.inputs, rows))
    region = shared_memory.create_shared_memory_region(name, f"/{name}", len(raw) + (1 << 20))
    try:
        shared_memory.set_shared_memory_region(region, [np.frombuffer(raw, np.uint8)])
        with triton.InferenceServerClient(url) as client:
            client.register_system_shared_memory(name, f"/{name}", len(raw) + (1 << 20))
            yield name
            client.unregister_system_shared_memory(name)
    finally:
        shared_memory.destroy_shared_memory_region(region)


def client(url: str, request: Path, in_flight: int, seconds: float = SECONDS) -> subprocess.Popen[str]:
    """A cheap client in a process of its own, ready to go: ``rate`` lets it."""
    # The cheapest sends what fits HTTP/2's first window; gRPC's own sends anything.
    fits = request.stat().st_size < _FIRST_WINDOW
    here = Path(__file__).parent
    program = [str(here / "peers" / "closed_loop.py"), "grpc"] if fits else [str(here / "closed_loop.py")]
    command = [sys.executable, *program, url, str(request), str(in_flight), str(seconds)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def rate(started: subprocess.Popen[str]) -> float:
    """Answers a second that the client got."""
    assert started.stdin is not None
    assert started.stdout is not None
    started.stdin.write("go\n")
    started.stdin.flush()
    calls, seconds = started.stdout.readline().split()
    return int(calls) / float(seconds)


def sent(url: str, request: Path, rows: int, in_flight: int, seconds: float) -> float:
    """Inputs a second that a server answers."""
    with client(url, request, in_flight, seconds) as started:
        return rate(started) * rows


def interleaved(ways: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """All ways in turns, so that whatever else the machine does meets all alike."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(ways[name]())
    return found


def against(values: Sequence[float], limit: Sequence[float]) -> str:
    """The median of the ratios of the same turn, with their least and greatest."""
    ratios = [one / other for one, other in zip(values, limit, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def way(
    url: str,
    described: Any,
    rows: int,
    in_flight: int,
    folder: Path,
    *,
    region: str | None = None,
    seconds: float = SECONDS,
) -> Callable[[], float]:
    """A function that measures one way to call a server."""
    request = folder / f"{described.name}_{rows}_{region}.bin"
    request.write_bytes(request_bytes(described, rows, region))
    return lambda: sent(url, request, rows, in_flight, seconds)


def test_the_servers_share_of_bare_onnx_runtime(
    reference_server: EmbeddedServer,
    large: EmbeddedServer,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    rows = []
    url = reference_server.grpc_url
    tiny, heavy = metadata(url, "chest_xray"), metadata(large.grpc_url, "densenet")
    graph = reference_server.repository / "chest_xray_pipeline" / "1" / "model.onnx"
    with shared(url, tiny, 16) as region:
        ways = {"bare ONNX Runtime, 2 sessions of 1 thread, 16 a run": bare(graph, 16, SECONDS)}
        for size in (1, 16):
            for in_flight in (8, 32):
                ways[f"gRPC, {in_flight} in flight, {size} a request"] = way(url, tiny, size, in_flight, tmp_path)
        ways["shared memory, 32 in flight, 16 a request"] = way(url, tiny, 16, 32, tmp_path, region=region)
        rows += _rows("`chest_xray`", interleaved(ways))
    graph = large.repository / "densenet_pipeline" / "1" / "model.onnx"
    ways = {"bare ONNX Runtime, 2 sessions of 1 thread, 1 a run": bare(graph, 1, SECONDS)}
    ways["gRPC, 4 in flight, 1 a request"] = way(large.grpc_url, heavy, 1, 4, tmp_path)
    plain = repository_of(large.repository, "densenet", tmp_path / "models", has_queue=False)
    with EmbeddedServer(plain, verify=False) as server:
        (tmp_path / "plain").mkdir()
        ways["gRPC, 4 in flight, 1 a request, `queue: null`"] = way(server.grpc_url, heavy, 1, 4, tmp_path / "plain")
        rows += _rows("`densenet`", interleaved(ways))
    lines = [
        f"{machine()} Inputs a second through the public model; {ROUNDS} turns of {SECONDS:g} s for each way, medians.",
        "The client, one process on the server's own cores, sends a request written out beforehand, and parses no",
        "answer. The ratio is the median of each turn's, with the least and the greatest.",
        "",
        *table(("model", "how", "a second", "ratio to bare"), rows),
    ]
    write_section("Serving path", lines)


def _rows(model: str, found: dict[str, list[float]]) -> list[list[str]]:
    limit = next(iter(found.values()))
    return [[model, how, f"{median(values):,.0f}", against(values, limit)] for how, values in found.items()]


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The reference models with their steps kept apart."""
    folder = tmp_path_factory.mktemp("apart")
    for path in sorted(SPECS.glob("*.yaml")):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec["serving"] = spec.get("serving", {}) | {"fuse": False}
        for name in ("model", "tokenizer"):
            if name in spec:
                spec[name] = str(SPECS / spec[name])
        (folder / path.name).write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
        export(folder / path.name, folder / "models")
    with EmbeddedServer(folder / "models", start_timeout_s=300) as server:
        yield server


def test_one_step_against_three(reference_server: EmbeddedServer, apart: EmbeddedServer, tmp_path: Path) -> None:
    rows = []
    for name in apart.models:
        python = any(
            'backend: "python"' in config.read_text(encoding="utf-8")
            for config in apart.repository.glob(f"{name}_*/config.pbtxt")
            if config.parent.name.removeprefix(f"{name}_") in {"tokenize", "detokenize"}
        )
        described = metadata(apart.grpc_url, name)
        for size, in_flight in ((1, 32), (16, 8)):
            ways = {
                how: way(server.grpc_url, described, size, in_flight, tmp_path, seconds=SHORT_S)
                for how, server in (("fused", reference_server), ("apart", apart))
            }
            found = interleaved(ways, SHORT_ROUNDS)
            each = [f"{median(found[how]):,.0f}" for how in ("fused", "apart")]
            kind = "yes" if python else "no"
            rows.append([f"`{name}`", kind, size, in_flight, *each, against(found["fused"], found["apart"])])
    head = ("model", "python step", "inputs a request", "in flight", "fused, a second", "apart, a second", "ratio")
    lines = [
        f"{machine()} Inputs a second; apart: `serving: {{fuse: false}}`, preprocessing, network, postprocessing.",
        f"{SHORT_ROUNDS} turns of {SHORT_S:g} s each, in turns; medians, and the ratio's least and greatest.",
        "",
        *table(head, rows),
    ]
    write_section("One step against three", lines)
