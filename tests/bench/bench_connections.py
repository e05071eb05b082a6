"""What system shared memory gains for large inputs on one host, and whether a second connection gains anything.

``make bench`` writes the tables to tests/bench/results.md. The model reads one element of its
input, so what is measured is the way there. All ways take turns in one process.
"""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bench.report import machine, table, write_section
from support.repositories import write_python
from support.servers import raw_server

from radserve import Client, ClientOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

STEP = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        first = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()[:, :1].astype(np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", first)])
"""
DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
SIZES = ((512, 512, 200), (2048, 2500, 60))
ROUNDS, THREADS, WARM_UP = 7, 8, 5


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("repository")
    for dtype, datatype in DATATYPES.items():
        write_python(repository, dtype, STEP, (("X", datatype, (-1,)),), (("Y", "FP32", (1,)),))
    with raw_server(repository) as (_, url):
        yield url


def pixels(rows: int, columns: int, dtype: str) -> dict[str, NDArray[Any]]:
    values = np.random.default_rng(0).integers(0, 256, (1, rows * columns))
    return {"X": values.astype(dtype)}


def taken_ms(client: Client, dtype: str, inputs: dict[str, NDArray[Any]]) -> float:
    model = client.model(dtype)
    began = perf_counter()
    answer = model.infer(inputs)
    taken = perf_counter() - began
    assert answer.arrays["Y"][0, 0] == inputs["X"][0, 0]
    return taken * 1e3


def quartiles(values: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def test_what_shared_memory_gains(url: str) -> None:
    rows = []
    with Client(url) as sent, Client(options=ClientOptions(endpoints=(url,), shared_memory=True)) as shared:
        for height, width, calls in SIZES:
            for dtype in DATATYPES:
                inputs = pixels(height, width, dtype)
                pairs = [(taken_ms(sent, dtype, inputs), taken_ms(shared, dtype, inputs)) for _ in range(calls)]
                over, through = zip(*pairs[WARM_UP:], strict=True)
                ratio = quartiles([one / other for one, other in pairs[WARM_UP:]])
                size = f"{inputs['X'].nbytes / 2**20:.2f}"
                rows.append([f"{height} x {width} {dtype}", size, len(over), *map(quartiles, (over, through)), ratio])
    lines = [
        f"{machine()} One inference after the other on a prepared array, over the connection and through",
        "system shared memory in turns, in ms; medians, with the quartiles.",
        "",
        *table(("input", "MiB", "n", "connection", "shared memory", "ratio"), rows),
    ]
    write_section("Shared memory", lines)


def rate(clients: Sequence[Client], dtype: str, inputs: dict[str, NDArray[Any]], calls: int) -> float:
    """Inferences a second of some threads, the connections in turn."""
    models = [client.model(dtype) for client in clients]
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda model: model.infer(inputs), models * THREADS))
        began = perf_counter()
        for _ in threads.map(lambda pair: pair[0].infer(inputs), zip(cycle(models), range(calls), strict=False)):
            pass
        return calls / (perf_counter() - began)


def test_what_a_second_connection_gains(url: str) -> None:
    rows = []
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(url)) for _ in range(4)]
        for height, width, calls in ((28, 28, 1500), (512, 512, 400), (2048, 2500, 60)):
            inputs = pixels(height, width, "uint8")
            taken: dict[int, list[float]] = {1: [], 2: [], 4: []}
            for _ in range(ROUNDS):
                for count, rates in taken.items():
                    rates.append(rate(clients[:count], "uint8", inputs, calls))
            for count, rates in taken.items():
                against = quartiles([one / alone for one, alone in zip(rates, taken[1], strict=True)])
                rows.append([f"{height} x {width} uint8", count, f"{statistics.median(rates):,.0f}", against])
    lines = [
        f"{machine()} {THREADS} threads, whose inferences go over one or several connections; medians of {ROUNDS}",
        "rounds in which these took turns, with the quartiles of the ratio.",
        "",
        *table(("input", "connections", "inferences/s", "against one"), rows),
    ]
    write_section("Several connections", lines)
