"""Bare ONNX Runtime, the limit that every server is held against: two sessions of one thread each."""

from __future__ import annotations

import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def session_of(graph: Path) -> ort.InferenceSession:
    """A session with one thread that does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def feeds_of(session: ort.InferenceSession, rows: int) -> dict[str, Any]:
    """Random pixels for a graph with one input."""
    (first,) = session.get_inputs()
    return {first.name: np.random.default_rng(0).integers(0, 256, (rows, *first.shape[1:]), np.uint8)}


def bare(graph: Path, rows: int, seconds: float) -> Callable[[], float]:
    """A function that returns how many inputs a second two sessions compute."""
    sessions = [session_of(graph) for _ in range(2)]
    feeds = feeds_of(sessions[0], rows)

    def run() -> float:
        rates: list[float] = []

        def work(session: ort.InferenceSession) -> None:
            began, runs = perf_counter(), 0
            while (taken := perf_counter() - began) < seconds:
                session.run(None, feeds)
                runs += 1
            rates.append(runs * rows / taken)

        threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(rates)

    return run
