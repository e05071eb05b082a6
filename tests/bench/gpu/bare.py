"""ONNX Runtime in this process: what the server is held against."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from radserve.errors import InputError
from radserve_server.machine import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[Any]]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def check_device(device: str, graph: Path) -> None:
    """See that ONNX Runtime computes there.

    Args:
        device: cpu or cuda.
        graph: Any model.

    Raises:
        InputError: It does not; the message says what is missing.
    """
    if device == "cpu":
        return
    if CUDA not in ort.get_available_providers():
        msg = f"ONNX Runtime {ort.__version__} here was built without CUDA: install onnxruntime-gpu in its place"
        raise InputError(msg)
    ort.set_default_logger_severity(4)  # what it says of its tries takes many lines
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        ort.preload_dlls()
        found = ort.InferenceSession(str(graph), providers=[CUDA, CPU]).get_providers()
    ort.set_default_logger_severity(2)
    if CUDA not in found:
        msg = (
            "there is no GPU that ONNX Runtime can use: it needs NVIDIA's driver (nvidia-smi tells), and CUDA"
            " and cuDNN: pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
        raise InputError(msg)


def open_session(
    graph: Path, device: str, cuda: Mapping[str, str], *, instances: int = 1, profile: str | None = None
) -> ort.InferenceSession:
    """A session with the options that the server's backend has.

    Args:
        graph: The model.
        device: cpu or cuda.
        cuda: Options of CUDA.
        instances: Sessions that share the cores.
        profile: How the profile's name begins; None writes none.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, cores() // instances)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # copies between the devices are counted below, not told
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    providers: list[Any] = [CPU] if device == "cpu" else [(CUDA, {"device_id": "0", **cuda}), CPU]
    return ort.InferenceSession(str(graph), options, providers=providers)


def nodes_on_device(graph: Path, device: str, feeds: Tensors) -> str:
    """How many of a graph's nodes run on the device, of all: those that do not cost copies."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(graph, device, {}, profile=f"{folder}/profile")
        session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = {event["name"]: event["args"]["provider"] for event in events if event.get("args", {}).get("provider")}
    there = sum(provider == (CPU if device == "cpu" else CUDA) for provider in ran.values())
    return f"{there} of {len(ran)}"


class Bare:
    """Sessions that run at the same time, a thread each.

    Args:
        graph: The model.
        device: cpu or cuda.
        cuda: Options of CUDA.
        instances: How many sessions.
    """

    def __init__(self, graph: Path, device: str, cuda: Mapping[str, str], instances: int) -> None:
        self._device = device
        self._sessions = [open_session(graph, device, cuda, instances=instances) for _ in range(instances)]

    def rate(self, feeds: Tensors, seconds: float) -> float:
        """Runs a second, all sessions together; inputs come from this process' memory and outputs go there."""
        return self._together([partial(one.run, None, dict(feeds)) for one in self._sessions], seconds)

    def bound_rate(self, feeds: Tensors, seconds: float) -> float:
        """The same without copies: inputs lie on the device, and outputs stay there (IO binding)."""
        return self._together([self._bound(session, feeds) for session in self._sessions], seconds)

    def _bound(self, session: ort.InferenceSession, feeds: Tensors) -> Callable[[], None]:
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, self._device, 0))
        for output in session.get_outputs():
            binding.bind_output(output.name, self._device, 0)

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    def _together(self, runs: list[Callable[[], Any]], seconds: float) -> float:
        rates = []

        def work(run: Callable[[], Any]) -> None:
            began, count = perf_counter(), 0
            while (taken := perf_counter() - began) < seconds or not count:
                run()
                count += 1
            rates.append(count / taken)

        threads = [threading.Thread(target=work, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(rates)


def milliseconds(session: ort.InferenceSession, feeds: Tensors, runs: int) -> list[float]:
    """What each of some runs took."""
    taken = []
    for _ in range(runs):
        began = perf_counter()
        session.run(None, dict(feeds))
        taken.append((perf_counter() - began) * 1e3)
    return taken


def sequences(session: ort.InferenceSession, batch: int) -> dict[str, NDArray[np.float32]]:
    """Right-padded sequences of all lengths up to the whole, for a recurrent layer."""
    (entry,) = session.get_inputs()
    steps, features = entry.shape[1:]
    values = np.random.default_rng(batch).normal(size=(batch, steps, features)).astype(np.float32)
    lengths = np.linspace(steps, steps / 4, batch).astype(int)
    values[np.arange(steps)[None] >= lengths[:, None]] = 0
    return {entry.name: values}
