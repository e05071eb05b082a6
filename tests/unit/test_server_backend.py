"""What of the backend a real Triton cannot show: the options it reads, and cancelled requests."""

from __future__ import annotations

import importlib.util
import json
import math
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
    utils.Logger = SimpleNamespace(log_info=lambda _: None)  # type: ignore[attr-defined]
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


@pytest.mark.parametrize(
    ("configured", "instances", "machine", "threads"),
    [
        (None, [1], {"CORES": "8"}, 8),  # nothing configured: all the cores for the one instance
        ("1", [2], {"CORES": "8"}, 4),  # what the exporter writes says nothing about this machine
        ("1", [2], {"CORES": "2"}, 1),
        ("1", [2], {"CORES": "1"}, 1),  # never none
        ("1", [2, 1], {"CORES": "7"}, 2),  # groups of instances count together
        ("3", [2], {"CORES": "16"}, 3),  # a configuration that says more stands
        ("3", [2], {"CORES": "16", "THREADS": "5"}, 5),  # unless this run was asked for something else
        ("1", [2], {"CORES": "16", "THREADS": "1"}, 1),
        ("1", [2], {}, 1),  # another server than the embedded one: as configured
        (None, [2], {}, 0),
    ],
)
def test_an_instance_gets_its_share_of_the_cores_unless_told_otherwise(
    configured: str | None,
    instances: list[int],
    machine: dict[str, str],
    threads: int,
    *,
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CORES", "THREADS"):
        monkeypatch.setenv(f"RADSERVE_{name}", machine.get(name, ""))
    parameters = {} if configured is None else {"intra_op_thread_count": {"string_value": configured}}
    config = {"parameters": parameters, "instance_group": [{"count": count} for count in instances]}
    assert backend._session_options(config).intra_op_num_threads == threads


@pytest.fixture
def with_cuda(backend: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The backend, as if ONNX Runtime were built with CUDA."""
    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    return backend


ON_GPU = {"model_instance_kind": "GPU", "model_instance_device_id": "1"}


def test_an_instance_on_a_gpu_computes_on_that_one_with_the_options_that_nvidias_backend_reads(with_cuda: Any) -> None:
    accelerators = [
        {"name": "cuda", "parameters": {"cudnn_conv_algo_search": "HEURISTIC"}},
        {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}},
    ]
    config = {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": accelerators}}}
    assert with_cuda._cuda_options(config, ON_GPU) == {"device_id": "1", "cudnn_conv_algo_search": "HEURISTIC"}
    assert with_cuda._cuda_options({}, ON_GPU) == {"device_id": "1"}


def test_an_instance_on_the_cpu_computes_there_whatever_onnx_runtime_could(with_cuda: Any) -> None:
    assert with_cuda._cuda_options({}, ON_GPU | {"model_instance_kind": "CPU"}) is None


def test_where_triton_chose_a_gpu_and_onnx_runtime_knows_none_the_cpu_computes(backend: Any) -> None:
    assert "CUDAExecutionProvider" not in ort.get_available_providers()
    assert backend._cuda_options({}, ON_GPU) is None


def test_cuda_that_does_not_work_is_an_error_and_not_a_slow_model(backend: Any) -> None:
    graph = Path(__file__).parents[2] / "model_repository" / "chest_xray_pipeline" / "1" / "model.onnx"
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),  # ONNX Runtime's, which then goes on
        pytest.raises(backend.ConfigError, match=r"GPU 1 .*onnxruntime-gpu\[cuda,cudnn\].*kind cpu"),
    ):
        backend._session(graph, ort.SessionOptions(), {"device_id": "1"})


@pytest.mark.parametrize("count", [1, 3])
def test_cancelled_requests_are_not_run(backend: Any, count: int) -> None:
    model = backend.TritonPythonModel()  # without a session: running anything would raise
    responses = model.execute([SimpleNamespace(is_cancelled=lambda: True)] * count)
    assert [response.error.args[1] for response in responses] == [_TritonError.CANCELLED] * count


class _Session:
    """Counts rows, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], tuple[int, ...]]] = []
        self.fed: list[np.ndarray[Any, Any]] = []

    def run(self, names: list[str], feeds: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        self.calls.append((names, feeds["X"].shape))
        self.fed.append(feeds["X"])
        return [feeds["X"].copy() for _ in names]


def _request(rows: int, *wanted: str, array: np.ndarray[Any, Any] | None = None) -> SimpleNamespace:
    sent = np.zeros((rows, 2), np.float32) if array is None else array
    tensor = SimpleNamespace(name=lambda: "X", as_numpy=lambda: sent)
    return SimpleNamespace(
        is_cancelled=lambda: False, inputs=lambda: [tensor], requested_output_names=lambda: list(wanted)
    )


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


def _answers(responses: list[Any]) -> list[np.ndarray[Any, Any]]:
    """The first output of each."""
    return [response.args[0][0].args[1] for response in responses]


def test_batches_use_the_same_memory_again(backend: Any) -> None:
    model, session = _model(backend, batched=True)
    for rows in (3, 2, 3):
        model.execute([_request(rows, "Y"), _request(1, "Y")])
    first, *others = session.fed
    assert all(np.shares_memory(first, other) for other in others)


def test_a_larger_batch_gets_more_memory_and_nothing_of_the_one_before(backend: Any) -> None:
    model, session = _model(backend, batched=True)
    generator = np.random.default_rng(3)
    for rows, kind in ((4, np.float32), (1, np.float64), (50, np.uint8), (7, np.int64), (2, object), (2, np.float32)):
        session.calls.clear()
        sent = [(generator.random((rows + extra, 2)) * 99).astype(kind) for extra in (0, 3, 1)]
        found = _answers(model.execute([_request(0, "Y", array=one) for one in sent]))
        for one, other in zip(sent, found, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        assert session.calls == [(["Y"], (3 * rows + 4, 2))]  # none was run alone


def test_a_batch_of_nothing_is_a_batch(backend: Any) -> None:
    model, session = _model(backend, batched=True)
    assert [len(one) for one in _answers(model.execute([_request(0, "Y"), _request(0, "Y")]))] == [0, 0]
    assert session.calls == [(["Y"], (0, 2))]


def test_no_run_takes_more_rows_of_several_requests_than_pays(backend: Any) -> None:
    model, session = _model(backend, batched=True)
    model._most = 16
    sent = [np.full((rows, 2), number, np.float32) for number, rows in enumerate((6, 10, 6, 20, 1, 15, 16))]
    found = _answers(model.execute([_request(0, "Y", array=one) for one in sent]))
    assert [shape for _, shape in session.calls] == [(16, 2), (6, 2), (20, 2), (16, 2), (16, 2)]
    assert [one.tolist() for one in found] == [one.tolist() for one in sent]


@pytest.mark.parametrize(("kind", "rows"), [("CPU", 48), ("GPU", math.inf)])
def test_how_many_rows_pay_depends_on_who_computes(
    kind: str, rows: float, with_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_cuda, "_session", lambda *_: SimpleNamespace(get_inputs=list, get_outputs=list))
    monkeypatch.setattr(with_cuda, "_graph_file", lambda *_: None)
    model = with_cuda.TritonPythonModel()
    config = {"max_batch_size": 64, "parameters": {"intra_op_thread_count": {"string_value": "3"}}}
    args = {"model_config": json.dumps(config), "model_repository": "", "model_version": "1"}
    model.initialize(args | {"model_instance_kind": kind, "model_instance_device_id": "0"})
    assert model._most == rows


def test_a_request_that_runs_alone_is_not_copied(backend: Any) -> None:
    model, session = _model(backend, batched=True)
    sent = np.ones((2, 2), np.float32)
    model.execute([_request(0, "Y", array=sent)])
    assert session.fed[0] is sent


@pytest.mark.parametrize(("took_s", "asked"), [(0.001, False), (0.5, True)])
def test_whether_a_request_was_cancelled_is_asked_where_the_last_run_was_slow(
    took_s: float, *, asked: bool, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, session = _model(backend, batched=True)
    now = iter(np.arange(10) * took_s)
    monkeypatch.setattr(backend, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    model.execute([_request(1, "Y")])
    cancelled = _request(1, "Y")
    cancelled.is_cancelled = lambda: True
    (response,) = model.execute([cancelled])
    assert hasattr(response, "error") == asked
    assert len(session.calls) == (1 if asked else 2)


def test_an_output_with_other_rows_than_the_input_is_split_for_nobody(backend: Any) -> None:
    model, session = _model(backend, batched=True)
    model._session = SimpleNamespace(run=lambda names, feeds: [value[:1] for value in session.run(names, feeds)])
    found = _answers(model.execute([_request(0, "Y", array=np.full((1, 2), row, np.float32)) for row in (1, 2)]))
    assert [one.tolist() for one in found] == [[[1, 1]], [[2, 2]]]  # each was run alone
