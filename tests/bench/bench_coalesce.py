"""What sharing requests gains calls that wait at the same time, and what a single call costs beside tritonclient's.

``make bench`` writes the table to tests/bench/results.md. Ratios are of runs
that took turns in one process; absolute rates are of the machine named there.
"""

from __future__ import annotations

import asyncio
import statistics
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as triton
from bench.report import machine, table, write_section

from radserve import AsyncClient, Client, ClientOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from radserve_server import EmbeddedServer

MODEL = "chest_xray"  # 28 x 28 x 1, as on the wire
ROUNDS = 7
CALLS, SEQUENTIAL, WARM_UP = 8192, 500, 1024  # both ways are tried while it gets warm
PIXELS = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
Rate = tuple[float, float]
"""Predictions a second, and this process's CPU time for each, in µs."""


def options(url: str, coalesce: int) -> ClientOptions:
    return ClientOptions(endpoints=(url,), coalesce=coalesce)


async def concurrent(url: str, callers: int, coalesce: int) -> Rate:
    """So many coroutines, each of which asks for one prediction after the other."""
    async with AsyncClient(options=options(url, coalesce)) as client:
        model = await client.model(MODEL)

        async def caller(calls: int) -> None:
            for _ in range(calls):
                await model.predict(PIXELS)

        await asyncio.gather(*(caller(WARM_UP // callers) for _ in range(callers)))
        began, used = perf_counter(), process_time()
        await asyncio.gather(*(caller(CALLS // callers) for _ in range(callers)))
        return CALLS / (perf_counter() - began), (process_time() - used) / CALLS * 1e6


def many(url: str, workers: int, coalesce: int) -> Rate:
    """``predict_many`` of the synchronous client."""
    with Client(options=options(url, coalesce)) as client:
        model = client.model(MODEL)
        list(model.predict_many([PIXELS] * WARM_UP))
        began, used = perf_counter(), process_time()
        assert sum(1 for _ in model.predict_many([PIXELS] * CALLS, workers=workers)) == CALLS
        return CALLS / (perf_counter() - began), (process_time() - used) / CALLS * 1e6


def interval(values: list[float]) -> str:
    """Median, and the smallest and the largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def compared(runs: Mapping[int, Callable[[], Rate]]) -> list[list[str]]:
    """A row for each ``coalesce``, the first of which is the base; all take turns."""
    taken: dict[int, list[Rate]] = {coalesce: [] for coalesce in runs}
    for _ in range(ROUNDS):
        for coalesce, run in runs.items():
            taken[coalesce].append(run())
    base = taken[next(iter(runs))]
    return [
        [
            str(coalesce),
            f"{statistics.median(rate for rate, _ in rates):,.0f}",
            f"{statistics.median(used for _, used in rates):.0f}",
            interval([rate / alone for (rate, _), (alone, _) in zip(rates, base, strict=True)]),
        ]
        for coalesce, rates in taken.items()
    ]


def test_what_calls_gain_that_share_requests(reference_server: EmbeddedServer) -> None:
    url = reference_server.grpc_url
    rows: list[list[str]] = []
    for callers in (8, 32, 128):
        caps = (0, 8) if callers == 8 else (0, 8, 64)
        runs = {cap: lambda callers=callers, cap=cap: asyncio.run(concurrent(url, callers, cap)) for cap in caps}
        rows += [[f"{callers} coroutines", *row] for row in compared(runs)]
    for workers in (8, 32):
        runs = {cap: lambda workers=workers, cap=cap: many(url, workers, cap) for cap in (0, 8)}
        rows += [[f"predict_many, {workers} threads", *row] for row in compared(runs)]
    lines = [
        f"{machine()} Single predictions of {MODEL} on prepared arrays, client and server on the same cores;",
        f"medians of {ROUNDS} rounds of {CALLS} in which the rows of one kind of caller took turns.",
        "",
        *table(("callers", "coalesce", "predictions/s", "client CPU, µs each", "against each alone"), rows),
    ]
    write_section("Calls that share requests", lines)


class Parts:
    """Calls, and in each the seconds before, within and after the one of gRPC.

    Args:
        call: Makes one.
        stub: Whose method it calls: taken the time of from now on.
    """

    def __init__(self, call: Callable[[], object], stub: Any) -> None:
        self._call, self._infer = call, stub.ModelInfer
        self._begin = self._end = 0.0
        self.taken: list[tuple[float, float, float, float]] = []
        stub.ModelInfer = self._timed

    def _timed(self, *args: Any, **options: Any) -> Any:
        self._begin = perf_counter()
        answer = self._infer(*args, **options)
        self._end = perf_counter()
        return answer

    def __call__(self) -> None:
        began = perf_counter()
        self._call()
        ended = perf_counter()
        self.taken.append((ended - began, self._begin - began, self._end - self._begin, ended - self._end))


def test_a_single_call_beside_tritonclients(reference_server: EmbeddedServer) -> None:
    url = reference_server.grpc_url
    batch = PIXELS[np.newaxis]
    with Client(url) as client, triton.InferenceServerClient(url) as other:
        model = client.model(MODEL)
        model.predict(PIXELS)
        names = [tensor.name for tensor in model.contract.outputs]

        def theirs() -> list[Any]:
            tensor = triton.InferInput("PIXELS", batch.shape, "UINT8")
            tensor.set_data_from_numpy(batch)
            wanted = [triton.InferRequestedOutput(name) for name in names]
            answer = other.infer(MODEL, [tensor], outputs=wanted, client_timeout=30)
            return [answer.as_numpy(name) for name in names]

        (connection,) = client._session.transport._core._connections.values()
        ours = Parts(lambda: model.predict(PIXELS), connection.stub)
        both = ours, Parts(theirs, other._client_stub)
        rounds = []
        for _ in range(ROUNDS + 1):
            for number in range(SEQUENTIAL):
                for one in both if number % 2 else both[::-1]:
                    one()
            rounds.append([np.median(one.taken, axis=0) * 1e6 for one in both])
            for one in both:
                one.taken.clear()
    taken = np.array(rounds[1:])  # the first was to get warm; axes: round, call, part
    ratios = interval((taken[:, 0, 0] / taken[:, 1, 0]).tolist())
    rows = [
        [name, *(f"{part:.0f}" for part in parts), ratio]
        for name, parts, ratio in zip(
            ("Client.predict", "tritonclient.grpc.InferenceServerClient.infer"),
            np.median(taken, axis=0),
            (ratios, "1"),
            strict=True,
        )
    ]
    lines = [
        f"{machine()} One prediction of {MODEL} after the other on a prepared array, both in turns: medians of",
        f"{SEQUENTIAL}, in µs, and of {ROUNDS} rounds; in gRPC is the call that both make, with the server's answer.",
        "Theirs ends with arrays; ours checks array and answer against the contract and ends with coded findings.",
        "",
        *table(("call", "µs", "before gRPC", "in gRPC", "after gRPC", "ratio"), rows),
    ]
    write_section("A single call", lines)
