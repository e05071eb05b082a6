"""What priorities and queue limits cost, by the number of instances: Triton then prepares no batch ahead."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from bench.bench_serving import against, metadata, request_bytes
from bench.peers.closed_loop import Grpc, Link, Loop
from bench.queues import repository_of
from bench.report import machine, table, write_section

from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "chest_xray"
ROUNDS, SECONDS, LEAD_IN_S = 7, 1.5, 0.3
STANDS_STILL_S = 0.2  # no request takes so long
LOADS = ((1, 8), (1, 32), (16, 32))  # inputs a request, requests in flight
WAYS = (("default", 1), ("default", 2), ("default", 3), ("`queue: null`", 1), ("`queue: null`", 2))


class Turn(NamedTuple):
    """Inputs a second, how often there was no answer at all for a while, and the longest such time."""

    per_s: float
    stood_still: int
    longest_s: float


class _Watched(Loop):
    """Remembers when answers came."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def answered(self, link: Link, size: int) -> None:
        self.times.append(perf_counter())
        super().answered(link, size)


async def _turn(url: str, request: bytes, rows: int, in_flight: int) -> Turn:
    loop = _Watched()
    host, _, port = url.partition(":")
    transport, link = await asyncio.get_running_loop().create_connection(
        lambda: Grpc(url, request, loop), host, int(port)
    )
    loop.links.append(link)
    await loop.run(LEAD_IN_S, SECONDS, in_flight)
    transport.abort()
    end = loop.times[0] + LEAD_IN_S + SECONDS
    gaps = [after - before for before, after in pairwise(loop.times) if before < end]
    return Turn(loop.calls * rows / SECONDS, sum(gap > STANDS_STILL_S for gap in gaps), max(gaps))


def test_what_priorities_and_queue_limits_cost(reference_server: EmbeddedServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = {}
        for number, (queue, instances) in enumerate(WAYS):
            repository = repository_of(
                reference_server.repository,
                MODEL,
                tmp_path / str(number),
                has_queue=queue == "default",
                instances=instances,
            )
            server = EmbeddedServer(repository, verify=False, supervise=False)
            servers[queue, instances] = stack.enter_context(server)
        described = metadata(servers[WAYS[0]].grpc_url, MODEL)
        rows: list[list[object]] = []
        for inputs, in_flight in LOADS:
            request = request_bytes(described, inputs)
            turns: dict[tuple[str, int], list[Turn]] = {way: [] for way in WAYS}
            for number in range(ROUNDS):
                for way in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
                    turns[way].append(asyncio.run(_turn(servers[way].grpc_url, request, inputs, in_flight)))
            usual = [turn.per_s for turn in turns["default", 2]]
            for (queue, instances), made in turns.items():
                rates = [turn.per_s for turn in made]
                stood_still = 10 * sum(turn.stood_still for turn in made) / (ROUNDS * (SECONDS + LEAD_IN_S))
                longest_ms = 1e3 * max(turn.longest_s for turn in made)
                cells = [f"{median(rates):,.0f}", against(rates, usual), f"{stood_still:.1f}", f"{longest_ms:.0f}"]
                rows.append([inputs, in_flight, queue, instances, *cells])
    head = (
        "inputs a request",
        "in flight",
        "queue",
        "instances",
        "inputs a second",
        "ratio to two instances",
        "stood still in 10 s",
        "longest, ms",
    )
    lines = [
        f"{machine()} `{MODEL}`, one cheap client on the server's cores; medians of {ROUNDS} turns of {SECONDS:g} s,",
        "of the ratio also the least and the greatest. Stood still: nobody was answered for 200 ms or more. With",
        "priorities, queue timeouts or sizes Triton's batcher is told of a free instance by the next request alone:",
        "where all in flight wait already, it looks again after 500 ms. A spare instance, or `queue: null`, helps.",
        "",
        *table(head, rows),
    ]
    write_section("What priorities and queue limits cost", lines)
