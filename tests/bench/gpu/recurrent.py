"""Recurrent layers for a GPU, as the exporter writes them and as tf2onnx does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from bench.bench_recurrent import FEATURES, MODELS, STEPS, by_itself
from support.keras_models import keras, layers, vary

from radserve_export.from_keras.convert import convert

if TYPE_CHECKING:
    from pathlib import Path


def write_recurrent(folder: Path) -> None:
    """Write each layer twice: ``NAME.native.onnx`` and ``NAME.loop.onnx``."""
    folder.mkdir(parents=True)
    for name, made in MODELS.items():
        model = vary(keras.Sequential([layers.Input((STEPS, FEATURES)), *made()]))
        onnx.save(convert(model, source_sha256="0" * 64).graph, folder / f"{name}.native.onnx")
        onnx.save(by_itself(model), folder / f"{name}.loop.onnx")
