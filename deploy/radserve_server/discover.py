"""Find a Triton and say what it lacks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.errors import ServerStartError, installing

if TYPE_CHECKING:
    from collections.abc import Iterable

TRITONSERVER_VARIABLE = "RADSERVE_TRITONSERVER"
STUB = "triton_python_backend_stub"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_INSTALL = installing("server")
_SYSTEM = Path("/opt/tritonserver/bin/tritonserver")


@dataclass(frozen=True, kw_only=True)
class TritonInstallation:
    """A ``tritonserver`` and what belongs to it.

    Attributes:
        binary: The executable.
        origin: Where it was found, for people.
        backends: Its folder of backends.
        stub: The Python backend's stub for the running Python.
        libraries: Folders that the dynamic loader must search.
    """

    binary: Path
    origin: str
    backends: Path
    stub: Path
    libraries: tuple[Path, ...]

    @property
    def has_onnxruntime(self) -> bool:
        """Whether it brings NVIDIA's ONNX Runtime backend."""
        return (self.backends / "onnxruntime" / "libtriton_onnxruntime.so").is_file()

    def environment(self) -> dict[str, str]:
        """The environment to run it in: the stub then finds this Python's packages."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
        # The stub asks the first python3 on PATH where its packages are.
        path = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
        libraries = [str(folder) for folder in self.libraries] + [inherited.get("LD_LIBRARY_PATH", "")]
        return inherited | {
            "PATH": path,
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
            "ORT_DISABLE_TELEMETRY": "1",  # else ONNX Runtime keeps a device id, and may send it
            "PYTHONDONTWRITEBYTECODE": "1",  # no __pycache__ in the model repository
            "PYTHONUNBUFFERED": "1",
        }


def find_triton(tritonserver: Path | None = None) -> TritonInstallation:
    """Find a server: as asked, in /opt/tritonserver, on PATH, in the nvidia-pytriton wheel.

    Args:
        tritonserver: The executable to use; None looks into the variable
            ``RADSERVE_TRITONSERVER``, then into the places above.

    Raises:
        ServerStartError: There is none, or the one asked for is not executable.
    """
    asked = tritonserver or os.environ.get(TRITONSERVER_VARIABLE)
    if asked:
        origin = "--tritonserver" if tritonserver else TRITONSERVER_VARIABLE
        binary = Path(asked).expanduser()
        if not _executable(binary):
            msg = f"{binary} (from {origin}) is not an executable file: give the path of a tritonserver"
            raise ServerStartError(msg)
        return _installation(binary, origin)
    on_path = shutil.which("tritonserver")
    candidates = (
        (_SYSTEM, "/opt/tritonserver"),
        (Path(on_path) if on_path else None, "PATH"),
        (_wheel_binary(), "the nvidia-pytriton wheel"),
    )
    for candidate, origin in candidates:
        if candidate is not None and _executable(candidate):
            return _installation(candidate, origin)
    msg = f"no Triton server was found: {_INSTALL} (Python 3.11 or 3.12), or give --tritonserver PATH"
    raise ServerStartError(msg)


@dataclass(frozen=True)
class Problem:
    """Something that keeps a server from running.

    Attributes:
        what: What is missing or wrong.
        fix: The command, or the step, that puts it right.
    """

    what: str
    fix: str

    def __str__(self) -> str:
        """Both, on one line."""
        return f"{self.what}: {self.fix}"


def problems(triton: TritonInstallation) -> list[Problem]:
    """What keeps a server from running here, and how to put it right."""
    found = [*_environment_problems()]
    backend = triton.backends / "python" / "libtriton_python.so"
    if not backend.is_file():
        found.append(Problem(f"{triton.binary} has no Python backend ({backend} is missing)", _INSTALL))
    elif not triton.stub.is_file():
        what = f"{triton.binary} has no stub for Python {_PYTHON} ({triton.stub} is missing)"
        found.append(Problem(what, f"{_INSTALL}, with Python 3.11 or 3.12"))
    else:
        found += _library_problems(triton)
    return found


def _environment_problems() -> Iterable[Problem]:
    numpy = _version("numpy")
    if numpy is None:
        yield Problem("numpy is not installed", _INSTALL)
    elif int(numpy.split(".")[0]) >= 2:  # noqa: PLR2004 - the major version this is about
        yield Problem(f"numpy {numpy} makes Triton's Python stub return empty outputs", "pip install 'numpy<2'")
    if importlib.util.find_spec("onnxruntime") is None:  # several distributions bring it, one of them for GPUs
        yield Problem("onnxruntime is not installed", _INSTALL)


def _library_problems(triton: TritonInstallation) -> Iterable[Problem]:
    missing = missing_libraries(triton.stub, triton.environment())
    python = next((name for name in missing if name.startswith("libpython")), None)
    if python is not None:
        version = python.removeprefix("libpython").split(".so")[0]
        if version != _PYTHON:
            yield Problem(f"{triton.stub} is for Python {version}, this is Python {_PYTHON}", f"use Python {version}")
        else:
            install = f"apt-get install libpython{_PYTHON}"
            yield Problem(f"{python} is missing", f"{install}, or use a Python built with --enable-shared")
    others = [name for name in missing if name != python] + missing_libraries(triton.binary, triton.environment())
    if others:
        names = ", ".join(sorted(set(others)))
        yield Problem(f"{triton.binary} lacks {names}", "install what brings them, or set LD_LIBRARY_PATH")


def missing_libraries(binary: Path, environment: dict[str, str]) -> list[str]:
    """Shared libraries that the dynamic loader does not find for a program.

    Args:
        binary: The program; it is not run.
        environment: What it would run in.
    """
    # glibc's loader lists what it would load and exits: this is what ldd does.
    traced = subprocess.run(  # noqa: S603 - the server that is about to be run anyway
        [binary],
        env=environment | {"LD_TRACE_LOADED_OBJECTS": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return [line.split()[0] for line in traced.stdout.splitlines() if line.endswith("not found")]


def _installation(binary: Path, origin: str) -> TritonInstallation:
    root = binary.resolve().parent.parent
    stub = root / "backends" / "python" / STUB
    wheel_stubs = root / "python_backend_stubs"
    if wheel_stubs.is_dir():
        stub = wheel_stubs / _PYTHON / STUB
    libraries = (root.parent.parent / "nvidia_pytriton.libs", root / "lib", *_libpython_folders())
    return TritonInstallation(
        binary=binary.absolute(),
        origin=origin,
        backends=root / "backends",
        stub=stub,
        libraries=tuple(folder for folder in libraries if folder.is_dir()),
    )


def _libpython_folders() -> list[Path]:
    """Folders that hold the running Python's shared library."""
    known = sysconfig.get_config_vars()
    folders = [Path(str(known.get("LIBDIR", ""))), Path(sys.base_prefix) / "lib"]
    folders.append(folders[0] / str(known.get("MULTIARCH", "")))
    return [folder for folder in dict.fromkeys(folders) if (folder / f"libpython{_PYTHON}.so.1.0").is_file()]


def _wheel_binary() -> Path | None:
    # pytriton itself stays unimported: it is slow, and starts things.
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "tritonserver" / "bin" / "tritonserver"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
