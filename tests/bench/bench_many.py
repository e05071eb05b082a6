"""Whether ``predict_many`` keeps the server busy: a folder of CT slices, through a tiny and through a large network."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from bench.bench_sdk import enlarged, source_of
from bench.densenet import export_densenet
from bench.report import machine, table, write_section

from radserve import Client, Rejection
from radserve.options import ClientOptions, RetryPolicy
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from radserve import Model

MANY = 1000
SAMPLED_S = 0.02
INSTANCES = 2  # of the network, as the exporter writes them
# In a process of its own: what looks must not take the interpreter from what is looked at.
SAMPLER = """
import sys, threading, time, urllib.request
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
stop = threading.Event()
while not stop.wait(float(sys.argv[2])):
    with urllib.request.urlopen(f"http://{sys.argv[1]}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    name = "nv_inference_pending_request_count{"
    print(sum(float(line.split()[-1]) for line in lines if line.startswith(name)), flush=True)
"""


@contextmanager
def pending(url: str) -> Iterator[list[float]]:
    """How many requests waited in the server's queues, each time it was looked at; full at the end."""
    samples: list[float] = []
    command = [sys.executable, "-c", SAMPLER, url, str(SAMPLED_S)]
    with subprocess.Popen(  # noqa: S603 - Python itself
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sampler:
        try:
            yield samples
        finally:
            samples += map(float, sampler.communicate()[0].split())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """As many files as a small archive has; their pixels differ by nothing."""
    source = enlarged(source_of("ct_hemorrhage"), 512, 512, 16)
    folder = tmp_path_factory.mktemp("archive")
    paths = [folder / f"{number:04}.dcm" for number in range(MANY)]
    for path in paths:
        path.write_bytes(source)
    return paths


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A DenseNet121 that takes what ct_hemorrhage takes, at 224 x 224 pixels."""
    folder = tmp_path_factory.mktemp("large")
    with EmbeddedServer(export_densenet(folder)) as server:
        yield server


def worked(server: EmbeddedServer, model: Model[Any]) -> tuple[float, int, int]:
    """Seconds that the network's instances computed, how often they did, and how many inputs."""
    with triton.InferenceServerClient(server.grpc_url) as client:
        (found,) = client.get_inference_statistics(f"{model.name}_pipeline").model_stats
    taken_ns = sum(
        part.ns
        for batch in found.batch_stats
        for part in (batch.compute_input, batch.compute_infer, batch.compute_output)
    )
    return taken_ns / 1e9, found.execution_count, found.inference_count


def row(
    server: EmbeddedServer, model: Model[Any], how: str, run: Callable[[], Iterable[object]]
) -> tuple[list[str], float]:
    """One line of the table, and inputs a second."""
    before = worked(server, model)
    with pending(server.metrics_url) as samples:
        began = perf_counter()
        answers = list(run())
        taken = perf_counter() - began
    compute_s, executions, inputs = np.subtract(worked(server, model), before)
    assert len(answers) == MANY
    assert not [one for one in answers if isinstance(one, Rejection)]
    queued = sum(one > 0 for one in samples) / len(samples)
    busy = compute_s / taken / INSTANCES
    rate = MANY / taken
    return [f"`{model.name}`", how, f"{rate:.0f}", f"{queued:.0%}", f"{busy:.0%}", f"{inputs / executions:.1f}"], rate


def test_many_files_keep_the_server_busy(
    reference_server: EmbeddedServer, large: EmbeddedServer, files: list[Path]
) -> None:
    # A model's queue refuses what waits for a second, as a busy machine may make it.
    patient = ClientOptions(endpoints=(large.grpc_url,), retry=RetryPolicy(attempts=20, retry_overload=True))
    rows = []
    with Client(reference_server.grpc_url) as tiny, Client(options=patient) as heavy:
        model = tiny.model("ct_hemorrhage")
        ways: dict[str, Callable[[], Iterable[object]]] = {
            "one after the other": lambda: map(model.predict, files),
            "threads": lambda: model.predict_many(files, processes=False),
            "processes": lambda: model.predict_many(files, processes=True),
            "where it pays": lambda: model.predict_many(files),
        }
        baseline = 0.0
        for how, run in ways.items():
            cells, rate = row(reference_server, model, how, run)
            baseline = baseline or rate
            rows.append([*cells, f"{rate / baseline:.1f}"])
        network = heavy.model("densenet")
        cells, _ = row(large, network, "where it pays", lambda: network.predict_many(files, timeout_s=60))
        rows.append([*cells, ""])
    head = ("model", "files read by", "a second", "queue not empty", "instances busy", "inputs a batch", "ratio")
    lines = [
        f"{machine()} `predict_many` of {MANY} files, CT slices of 512 x 512 pixels; client and server on the same",
        f"cores. The server's queue was looked at every {SAMPLED_S * 1e3:.0f} ms. `densenet` is a DenseNet121 of",
        "224 x 224 pixels: where the network costs more than reading a file, its instances are the limit.",
        "",
        *table(head, rows),
    ]
    write_section("Many files", lines)
