"""What of the backend a real Triton cannot show: the options it reads, and cancelled requests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

import radserve_server

if TYPE_CHECKING:
    from collections.abc import Callable

_MODEL = Path(radserve_server.__file__).parent / "backends" / "onnxruntime" / "model.py"


def _record(*args: object, **kwargs: object) -> SimpleNamespace:
    return SimpleNamespace(args=args, **kwargs)


class _TritonError(Exception):
    CANCELLED, INVALID_ARG, INTERNAL = range(3)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The backend's module, with no more of Triton's than an error needs."""
    utils = ModuleType("triton_python_backend_utils")
    utils.Tensor = utils.InferenceResponse = _record  # type: ignore[attr-defined]
    utils.TritonError = _TritonError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, utils.__name__, utils)
    spec = importlib.util.spec_from_file_location("backend_under_test", _MODEL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(backend: Any) -> Callable[..., ort.SessionOptions]:
    """The session options of a configuration with the given parameters."""

    def read(parameters: dict[str, str] | None = None, level: str | None = None) -> ort.SessionOptions:
        config: dict[str, object] = {
            "parameters": {name: {"string_value": value} for name, value in (parameters or {}).items()}
        }
        if level is not None:
            config["optimization"] = {"graph": {"level": level}}
        return backend._session_options(config)

    return read


def test_thread_counts_and_execution_mode_are_nvidias(options: Callable[..., ort.SessionOptions]) -> None:
    read = options({"intra_op_thread_count": "3", "inter_op_thread_count": "2", "execution_mode": "1"})
    assert (read.intra_op_num_threads, read.inter_op_num_threads) == (3, 2)
    assert read.execution_mode == ort.ExecutionMode.ORT_PARALLEL


def test_without_parameters_onnx_runtime_chooses(options: Callable[..., ort.SessionOptions]) -> None:
    read = options()
    assert (read.intra_op_num_threads, read.inter_op_num_threads) == (0, 0)
    assert read.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL


def test_idle_threads_do_not_spin_unless_told_to(options: Callable[..., ort.SessionOptions]) -> None:
    name = "session.intra_op.allow_spinning"
    assert options().get_session_config_entry(name) == "0"
    assert options({name: "1"}).get_session_config_entry(name) == "1"


def test_session_entries_reach_onnx_runtime(options: Callable[..., ort.SessionOptions]) -> None:
    read = options({"session.set_denormal_as_zero": "1"})
    assert read.get_session_config_entry("session.set_denormal_as_zero") == "1"


@pytest.mark.parametrize(
    ("level", "meaning"),
    [
        (None, "ORT_ENABLE_ALL"),
        ("-1", "ORT_ENABLE_BASIC"),
        ("1", "ORT_ENABLE_EXTENDED"),
        ("2", "ORT_DISABLE_ALL"),
    ],
)
def test_graph_levels_are_nvidias(options: Callable[..., ort.SessionOptions], level: str | None, meaning: str) -> None:
    assert options(level=level).graph_optimization_level == getattr(ort.GraphOptimizationLevel, meaning)


@pytest.mark.parametrize("count", [1, 3])
def test_cancelled_requests_are_not_run(backend: Any, count: int) -> None:
    model = backend.TritonPythonModel()  # without a session: running anything would raise
    responses = model.execute([SimpleNamespace(is_cancelled=lambda: True)] * count)
    assert [response.error.args[1] for response in responses] == [_TritonError.CANCELLED] * count


class _Session:
    """Counts rows, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], tuple[int, ...]]] = []

    def run(self, names: list[str], feeds: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        self.calls.append((names, feeds["X"].shape))
        return [feeds["X"] for _ in names]


def _request(rows: int, *wanted: str) -> SimpleNamespace:
    tensor = SimpleNamespace(name=lambda: "X", as_numpy=lambda: np.zeros((rows, 2), np.float32))
    return SimpleNamespace(is_cancelled=lambda: False, inputs=lambda: [tensor], requested_output_names=lambda: wanted)


def _model(backend: Any, *, batched: bool) -> tuple[Any, _Session]:
    model = backend.TritonPythonModel()
    model._session, model._batched = _Session(), batched
    model._input_types, model._outputs = {"X": "TYPE_FP32"}, ["Y", "Z"]
    return model, model._session


def test_only_what_the_requests_of_a_batch_ask_for_is_computed(backend: Any) -> None:
    model, session = _model(backend, batched=True)
    model.execute([_request(1, "Z"), _request(3, "Z")])
    assert session.calls == [(["Z"], (4, 2))]


def test_without_batch_axis_each_request_is_run_by_itself(backend: Any) -> None:
    model, session = _model(backend, batched=False)
    model.execute([_request(1, "Y"), _request(3, "Y", "Z")])
    assert session.calls == [(["Y"], (1, 2)), (["Y", "Z"], (3, 2))]
