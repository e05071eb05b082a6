from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from radserve.errors import ServerStartError, installing
from radserve_server import discover
from radserve_server.discover import find_triton, problems

if TYPE_CHECKING:
    from support.installations import CopyTriton


def _fake_server(folder: Path) -> Path:
    binary = folder / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    return binary


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A fake server in each place where one is looked for."""
    found = {name: _fake_server(tmp_path / name) for name in ("option", "variable", "opt", "path", "wheel")}
    monkeypatch.setenv(discover.TRITONSERVER_VARIABLE, str(found["variable"]))
    monkeypatch.setattr(discover, "_SYSTEM", found["opt"])
    monkeypatch.setenv("PATH", str(found["path"].parent))
    monkeypatch.setattr(discover, "_wheel_binary", lambda: found["wheel"])
    return found


def test_places_are_searched_in_the_documented_order(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_triton(places["option"]).binary == places["option"]
    assert find_triton().binary == places["variable"]
    monkeypatch.delenv(discover.TRITONSERVER_VARIABLE)
    assert find_triton().binary == places["opt"]
    places["opt"].unlink()
    assert find_triton().binary == places["path"]
    places["path"].chmod(0o644)
    assert find_triton().binary == places["wheel"]


def test_no_server_anywhere_names_the_command_that_brings_one(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(discover.TRITONSERVER_VARIABLE)
    for binary in places.values():
        binary.unlink()
    with pytest.raises(ServerStartError, match=re.escape(installing("server"))):
        find_triton()


@pytest.mark.parametrize("origin", ["--tritonserver", discover.TRITONSERVER_VARIABLE])
def test_a_server_asked_for_is_never_replaced_by_another(
    origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "no-such-server"
    monkeypatch.setenv(discover.TRITONSERVER_VARIABLE, str(missing))
    with pytest.raises(ServerStartError, match=origin):
        find_triton(missing if origin == "--tritonserver" else None)


def test_the_wheel_server_can_run_here() -> None:
    assert problems(find_triton()) == []


def test_numpy_2_in_the_stubs_environment_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "numpy-2.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (problem,) = problems(find_triton())
    assert "numpy 2.1.0" in problem.what
    assert problem.fix == "pip install 'numpy<2'"


def test_onnx_runtime_for_gpus_has_another_name_and_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "_version", {"numpy": "1.26.4", "onnxruntime-gpu": "1.31.0"}.get)
    assert not list(discover._environment_problems())
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert [problem.what for problem in discover._environment_problems()] == ["onnxruntime is not installed"]


def test_a_missing_libpython_is_a_problem(copy_triton: CopyTriton) -> None:
    triton = find_triton(copy_triton(libpython=f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.9.9"))
    (problem,) = problems(triton)
    assert "so.9.9 is missing" in problem.what
    assert "apt-get install libpython" in problem.fix


def test_a_stub_of_another_python_is_a_problem(copy_triton: CopyTriton) -> None:
    (problem,) = problems(find_triton(copy_triton(libpython="libpython3.99.so.1.0")))
    assert "for Python 3.99" in problem.what


def test_a_missing_stub_is_a_problem(copy_triton: CopyTriton) -> None:
    triton = find_triton(copy_triton())
    triton.stub.unlink()
    (problem,) = problems(triton)
    assert "has no stub for Python" in problem.what


def test_a_missing_python_backend_is_a_problem(copy_triton: CopyTriton) -> None:
    triton = find_triton(copy_triton())
    (triton.backends / "python" / "libtriton_python.so").unlink()
    (problem,) = problems(triton)
    assert "no Python backend" in problem.what


def test_the_stub_finds_this_pythons_packages_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    environment = find_triton().environment()
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))
    assert "PYTHONHOME" not in environment
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
