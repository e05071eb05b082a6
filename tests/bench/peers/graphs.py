"""The two graphs that every peer serves, and their right answers."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bench.limit import session_of
from bench.queues import repository_of

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Graph:
    """A public model, alone in its repository, and the graph behind it."""

    model: str
    repository: Path

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.repository / f"{self.model}_pipeline" / "1" / "model.onnx"

    @cached_property
    def without_queue(self) -> Path:
        """The repository as ``queue: null`` makes it."""
        folder = self.repository.with_name(f"{self.model}_without_queue")
        return repository_of(self.repository, self.model, folder, has_queue=False)

    @cached_property
    def _session(self) -> ort.InferenceSession:
        return session_of(self.path)

    @cached_property
    def input(self) -> tuple[str, list[int]]:
        """Name of the input, and the shape of one row of it; its dtype is uint8."""
        (only,) = self._session.get_inputs()
        assert only.type == "tensor(uint8)", only.type
        return only.name, [int(size) for size in only.shape[1:]]

    @cached_property
    def outputs(self) -> dict[str, tuple[np.dtype[Any], list[int]]]:
        """Dtype and shape of one row of each output."""
        types = {"tensor(float)": np.float32, "tensor(int8)": np.int8}
        return {
            entry.name: (np.dtype(types[entry.type]), [int(size) for size in entry.shape[1:]])
            for entry in self._session.get_outputs()
        }

    def output_bytes(self, rows: int) -> int:
        """Size of all outputs of a request."""
        return rows * sum(dtype.itemsize * math.prod(shape) for dtype, shape in self.outputs.values())

    def pixels(self, rows: int, seed: int) -> NDArray[np.uint8]:
        """Some input, another for each seed."""
        return np.random.default_rng(seed).integers(0, 256, (rows, *self.input[1]), np.uint8)

    def expected(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """What the outputs must be."""
        return dict(zip(self.outputs, self._session.run(None, {self.input[0]: pixels}), strict=True))


def chest_xray(folder: Path) -> Graph:
    """The committed reference model of that name."""
    for name in ("chest_xray", "chest_xray_pipeline"):
        shutil.copytree(ROOT / "model_repository" / name, folder / "chest_xray" / name)
    return Graph("chest_xray", folder / "chest_xray")


def densenet(folder: Path) -> Graph:
    """A DenseNet121 of 224 x 224 pixels, untrained; exported in another process, for TensorFlow is large."""
    subprocess.run(  # noqa: S603 - Python itself
        [sys.executable, str(Path(__file__).parents[1] / "densenet.py"), str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return Graph("densenet", folder / "densenet")
