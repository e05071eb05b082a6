"""From which cost of an input worker processes are ahead of threads in ``predict_many``."""

from __future__ import annotations

from functools import partial
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from bench.bench_sdk import enlarged, source_of
from bench.bench_serving import against, interleaved
from bench.report import machine, table, write_section

from radserve import Client, Rejection
from radserve._codec import prepare
from radserve._workers._preparing import LEAST_S, START_S

if TYPE_CHECKING:
    from pathlib import Path

    from radserve import Model
    from radserve.contracts import Contract
    from radserve_server import EmbeddedServer

ROUNDS = 5
SIDES = (256, 512, 768, 1024, 1536, 2048)
LONG_S = 3.0  # of processor time, all inputs of a turn together


def _cost_s(contract: Contract, path: Path) -> float:
    """Processor time to prepare a file, the median of many."""
    times = []
    for _ in range(30):
        began = thread_time()
        prepare(contract, path)
        times.append(thread_time() - began)
    return median(times)


def _rate(model: Model[Any], path: Path, count: int, *, processes: bool | None) -> float:
    """Answers a second, once a quarter is there and worker processes have started."""
    began, first = 0.0, count // 4
    for number, answer in enumerate(model.predict_many([path] * count, processes=processes, timeout_s=60)):
        assert not isinstance(answer, Rejection)
        if number == first:
            began = perf_counter()
    return (count - 1 - first) / (perf_counter() - began)


def test_from_which_cost_processes_are_ahead_of_threads(reference_server: EmbeddedServer, tmp_path: Path) -> None:
    rows = []
    source = source_of("ct_hemorrhage")
    with Client(reference_server.grpc_url) as client:
        model = client.model("ct_hemorrhage")
        for side in SIDES:
            path = tmp_path / f"{side}.dcm"
            path.write_bytes(enlarged(source, side, side, 16))
            cost_s = _cost_s(model.contract, path)
            count = max(100, round(LONG_S / cost_s))
            rate = partial(_rate, model, path, count)
            found = interleaved(
                {"threads": partial(rate, processes=False), "processes": partial(rate, processes=True)}, ROUNDS
            )
            rates = [f"{median(found[how]):,.0f}" for how in ("threads", "processes")]
            ratio = against(found["processes"], found["threads"])
            rows.append([f"{side} x {side}", f"{cost_s * 1e3:.1f}", count, *rates, ratio])
    head = ("CT slice", "CPU to prepare, ms", "files", "threads, a second", "processes, a second", "ratio")
    lines = [
        f"{machine()} `ct_hemorrhage`, `predict_many`, client and server on the same cores; medians of {ROUNDS}",
        "turns, of the ratio also the least and the greatest. The start of the processes does not count here;",
        f"`predict_many` weighs it itself: it starts them after {START_S:g} s of processor time, for inputs",
        f"that cost more than {LEAST_S * 1e3:g} ms.",
        "",
        *table(head, rows),
    ]
    write_section("Threads or processes", lines)
