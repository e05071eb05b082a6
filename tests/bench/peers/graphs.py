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
import onnxruntime as ort

if TYPE_CHECKING:
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

    def session(self) -> ort.InferenceSession:
        """Bare ONNX Runtime, with one thread that does not spin."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    @cached_property
    def _session(self) -> ort.InferenceSession:
        return self.session()

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
        [sys.executable, __file__, str(folder)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return Graph("densenet", folder / "densenet")


def _export_densenet(folder: Path) -> None:
    import keras  # noqa: PLC0415 - only the other process needs them
    import yaml  # noqa: PLC0415

    from radserve_export.pipeline import export  # noqa: PLC0415

    spec = yaml.safe_load((ROOT / "export" / "specs" / "ct_hemorrhage.yaml").read_text(encoding="utf-8"))
    keras.utils.set_random_seed(0)
    network = keras.applications.DenseNet121(weights=None, input_shape=(224, 224, 1), classes=len(spec["labels"]))
    network.save(folder / "densenet.keras")
    spec = {name: value for name, value in spec.items() if name not in {"training", "evaluation"}}
    spec |= {"name": "densenet", "model": "densenet.keras", "input": {**spec["input"], "rows": 224, "columns": 224}}
    (folder / "densenet.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    export(folder / "densenet.yaml", folder / "densenet")


if __name__ == "__main__":
    _export_densenet(Path(sys.argv[1]))
