"""What the machine is, and what its GPU does: nvidia-smi's word, where there is one."""

from __future__ import annotations

import platform
import shutil
import subprocess
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from radserve.loadtest import this_machine
from radserve_server.discover import find_triton

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERY_MS = 100
_TOOL = "nvidia-smi"


class Use:
    """What a GPU did over some time.

    Attributes:
        busy: Median share of the time in which it computed anything, percent; None if nobody told.
        memory_mib: Most of its memory that was taken, by all programs.
    """

    busy: float | None = None
    memory_mib: float | None = None


@contextmanager
def watched(gpu: int = 0) -> Iterator[Use]:
    """Look at a GPU while the block runs; what it did is known at the end."""
    use = Use()
    if shutil.which(_TOOL) is None:
        yield use
        return
    command = [_TOOL, f"--id={gpu}", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*command, f"--loop-ms={_EVERY_MS}"], stdout=subprocess.PIPE, text=True) as tool:  # noqa: S603 - NVIDIA's
        try:
            yield use
        finally:
            tool.terminate()
            lines = tool.communicate()[0].splitlines()
    told = [line.split(",") for line in lines if line.replace(",", "").replace(" ", "").isdigit()]
    if told:
        use.busy = median(float(busy) for busy, _ in told)
        use.memory_mib = max(float(memory) for _, memory in told)


def machine(device: str) -> str:
    """One line on where and with what this runs."""
    here = this_machine()
    parts = [f"{datetime.now(timezone.utc):%Y-%m-%d}", f"device {device}"]
    if device != "cpu" and shutil.which(_TOOL):
        asked = [_TOOL, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603 - NVIDIA's
        name, driver, memory = (told.stdout.splitlines() or ["unknown, unknown, unknown"])[0].split(", ")
        parts.append(f"{name} ({memory}), driver {driver}")
    triton = find_triton()
    origin = f"nvidia-pytriton {_version('nvidia-pytriton')}" if "wheel" in triton.origin else str(triton.binary)
    cuda = f" for CUDA {ort.cuda_version}" if getattr(ort, "cuda_version", "") else ""
    parts += [
        f"{here.processor}, {here.processors} processors, {here.system}",
        f"Python {platform.python_version()}, numpy {np.__version__}, ONNX Runtime {ort.__version__}{cuda}",
        f"Triton of {origin}, {'NVIDIA' if triton.has_onnxruntime else 'our python-based'} ONNX Runtime backend",
    ]
    return "; ".join(parts) + "."


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
