"""How the backend reads a model's configuration; its work is tested in a real Triton."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import onnxruntime as ort
import pytest

import radserve_server

if TYPE_CHECKING:
    from collections.abc import Callable

_MODEL = Path(radserve_server.__file__).parent / "backends" / "onnxruntime" / "model.py"


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ort.SessionOptions]:
    """The session options of a configuration with the given parameters."""
    # Triton's stub brings this module; nothing of it is needed to read options.
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    spec = importlib.util.spec_from_file_location("backend_under_test", _MODEL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def read(parameters: dict[str, str] | None = None, level: str | None = None) -> ort.SessionOptions:
        config: dict[str, object] = {
            "parameters": {name: {"string_value": value} for name, value in (parameters or {}).items()}
        }
        if level is not None:
            config["optimization"] = {"graph": {"level": level}}
        return module._session_options(config)

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
