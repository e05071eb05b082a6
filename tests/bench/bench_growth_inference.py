"""How cost grows with the input, the request and the model."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
from bench.growth_load import SECONDS, interleaved, load, memory_mb, write_request
from bench.growth_models import WIDTH, parameters, publish
from bench.growth_pictures import LINEAR, linear
from bench.growth_tables import BARE, CPU, HEAD, bare, beside, cpu, figures, latencies, write

from radserve_server import EmbeddedServer
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.growth_load import Point

SIZES = {f"size{size}": size for size in (28, 64, 224, 512)}
WIDTHS = {f"width{width}": width for width in (WIDTH, 74, 236, 745)}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SMALL = "small"
SLOW = {"size512": 2.0, "width236": 1.5, "width745": 3.0}  # seconds of a turn, where answers are few


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models, and their requests."""
    folder = tmp_path_factory.mktemp("growth")
    publish(folder, SMALL)
    # Small batches only: the exporter compares full ones, and 8 requests in flight make no larger.
    for name, size in SIZES.items():
        publish(folder, name, size=size, largest=8)
    for name, width in WIDTHS.items():
        publish(folder, name, width=width, largest=8)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[EmbeddedServer]:
    """A server of all of them; nothing but the load asks it anything."""
    with EmbeddedServer(folder / "models", supervise=False) as server:
        yield server


def both(folder: Path, server: EmbeddedServer, sizes: dict[str, int]) -> tuple[list[Point], list[Point]]:
    """Models of these input sizes: behind the server, 8 requests of one input in flight, and bare."""
    with ExitStack() as open_:
        ways = {}
        for name, size in sizes.items():
            request, seconds = write_request(folder, name, size), SLOW.get(name, SECONDS)
            one = load(server.grpc_url, name, request, servers=[server], in_flight=8, seconds=seconds)
            ways[name] = open_.enter_context(one)
            ways[f"bare {name}"] = bare(folder, name, seconds=seconds)
        found = interleaved(ways)
    return [found[name] for name in sizes], [found[f"bare {name}"] for name in sizes]


def panels(
    points: Sequence[Point], limits: Sequence[Point], reference: Sequence[float]
) -> dict[str, dict[str, Sequence[float]]]:
    rates = {"bare ONNX Runtime": [one.rate for one in limits], "served": [one.rate for one in points]}
    return {"inputs a second": {**rates, LINEAR: reference}, "latency, ms": {**latencies(points)}}


def test_with_the_input(folder: Path, server: EmbeddedServer) -> None:
    points, limits = both(folder, server, SIZES)
    sizes = list(SIZES.values())
    reference = linear(sizes, [one.rate for one in limits], at=-1, power=-2)
    rows = [
        [f"{size} x {size}", *figures(point), *beside(point, limit), *cpu(point)]
        for size, point, limit in zip(sizes, points, limits, strict=True)
    ]
    write(
        "input size",
        f"A convolutional network of {parameters(WIDTH):,} parameters, uint8 images, 8 requests of one in flight.",
        ("input", *HEAD, *BARE, *CPU),
        rows,
        x=("rows and columns", sizes),
        panels=panels(points, limits, reference),
    )


def test_with_the_request(folder: Path, server: EmbeddedServer) -> None:
    with ExitStack() as open_:
        ways = {}
        connect = partial(load, server.grpc_url, SMALL, servers=[server], in_flight=4)
        for batch in BATCHES:
            request = write_request(folder, SMALL, 28, batch)
            ways[f"{batch}"] = open_.enter_context(connect(request, rows=batch))
            ways[f"bare {batch}"] = bare(folder, SMALL, rows=batch)
        found = interleaved(ways)
    points, limits = [found[f"{batch}"] for batch in BATCHES], [found[f"bare {batch}"] for batch in BATCHES]
    rows = [
        [batch, *figures(point), *beside(point, limit), *cpu(point)]
        for batch, point, limit in zip(BATCHES, points, limits, strict=True)
    ]
    write(
        "request batch",
        f"The network of {parameters(WIDTH):,} parameters, uint8 images of 28 x 28, 4 requests in flight.",
        ("inputs a request", *HEAD, *BARE, *CPU),
        rows,
        x=("inputs a request", BATCHES),
        panels=panels(points, limits, linear(BATCHES, [one.rate for one in points])),
    )


def test_with_the_model(folder: Path, server: EmbeddedServer) -> None:
    points, limits = both(folder, server, dict.fromkeys(WIDTHS, 28))
    millions = [parameters(width) / 1e6 for width in WIDTHS.values()]
    stubs: dict[str, list[int]] = {}
    for stub in stubs_of(server.pid, server.repository):
        stubs.setdefault(stub.model.removesuffix("_pipeline"), []).append(stub.pid)
    rows = [
        [
            f"{count:.2f}",
            *figures(point),
            *beside(point, limit),
            f"{memory_mb(*stubs[name]):,.0f}",
            *cpu(point),
        ]
        for count, name, point, limit in zip(millions, WIDTHS, points, limits, strict=True)
    ]
    rounded = [float(f"{one:.1g}") for one in millions]
    write(
        "model size",
        "Networks of three convolutions on uint8 images of 28 x 28, 8 requests of one in flight, two instances each.",
        ("million parameters", *HEAD, *BARE, "both stubs, MB", *CPU),
        rows,
        x=("parameters, millions", rounded),
        panels=panels(points, limits, linear(rounded, [one.rate for one in limits], at=-1, power=-1)),
    )
