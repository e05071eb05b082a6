"""An urgent request overtakes those that wait in the server's queue."""

from __future__ import annotations

import statistics
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.repositories import write_python
from support.servers import wait_until

from radserve import Client, ClientClosedError, Priority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve import Model
    from radserve_server import EmbeddedServer

ROUTINE, STAT, BATCH = 200, 20, 8
# One batch takes 20 ms from when it starts; the answer says when that was, on the clock that all processes share.
STEP = """
import os
import time
import numpy as np
import pytest
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.folder = args["model_repository"]

    def execute(self, requests):
        while not os.path.exists(os.path.join(self.folder, "open")):
            time.sleep(0.001)
        start = time.clock_gettime(time.CLOCK_MONOTONIC)
        end = start + 0.02
        y = np.array([[start // 1, start % 1, len(requests), 0]], np.float32)
        answers = [pb_utils.InferenceResponse([pb_utils.Tensor("Y", y)]) for _ in requests]
        time.sleep(max(0, end - time.clock_gettime(time.CLOCK_MONOTONIC)))
        return answers
"""
QUEUE = (
    "dynamic_batching { priority_levels: 3 default_priority_level: 3 default_queue_policy { timeout_action: REJECT"
    " default_timeout_microseconds: 60000000 allow_timeout_override: true max_queue_size: 1000 } }"
)


def waiting(server: EmbeddedServer) -> int:
    """How many requests the server holds, by its own metrics."""
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics") as page:
        lines = page.read().decode().splitlines()
    (line,) = (line for line in lines if line.startswith('nv_inference_pending_request_count{model="slow_step"'))
    return int(float(line.split()[-1]))


def ask(model: Model, priority: Priority) -> tuple[float, float]:
    """When a request was sent, and when its batch began."""
    sent = time.monotonic()
    answer = model.infer({"X": np.zeros((1, 4), np.float32)}, priority=priority, timeout_s=120)["Y"][0]
    assert answer[2] <= BATCH
    return sent, float(answer[0]) + float(answer[1])


@pytest.mark.full  # the server drops the requests that still wait but slowly
def test_stat_overtakes_two_hundred_routine_requests(
    tmp_path: Path, start_server: Callable[..., EmbeddedServer]
) -> None:
    write_python(tmp_path, "slow", STEP)
    config = tmp_path / "slow_step" / "config.pbtxt"
    config.write_text(config.read_text().replace("dynamic_batching { max_queue_delay_microseconds: 0 }", QUEUE))
    door = tmp_path / "slow_step" / "open"
    door.touch()
    server = start_server(tmp_path, verify=False, supervise=False)
    door.unlink()
    with Client(server.grpc_url) as client, ThreadPoolExecutor(ROUTINE) as pool:
        model = client.model("slow")

        def keep_asking() -> list[tuple[float, float]]:
            """One of those that keep the queue full: asks anew as soon as it is answered, until the client closes."""
            times: list[tuple[float, float]] = []
            with suppress(ClientClosedError):
                while True:
                    times.append(ask(model, Priority.ROUTINE))
            return times

        callers = [pool.submit(keep_asking) for _ in range(ROUTINE)]
        try:
            # One batch is at the door already, and no longer in the queue.
            assert wait_until(lambda: waiting(server) >= ROUTINE - BATCH)
        finally:
            opened = time.monotonic()
            door.touch()
        urgent = [ask(model, Priority.STAT) for _ in range(STAT)]
        client.close()  # those that still wait would only raise the routine's median
        routine = [times for caller in callers for times in caller.result()]
    routine_s = statistics.median(began - max(sent, opened) for sent, began in routine)
    stat_s = statistics.median(began - sent for sent, began in urgent)
    assert stat_s < 0.1 * routine_s, f"STAT waited {1e3 * stat_s:.1f} ms, routine {1e3 * routine_s:.1f} ms"
