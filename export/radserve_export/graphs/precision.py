"""Graphs in lower precision: half floats, and integers of 8 bits."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from radserve.errors import ConversionError
from radserve_export.graphs.checked import all_nodes, check_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from radserve_export.network import Arrays

RECURRENT = ("LSTM", "GRU", "RNN", "Loop", "Scan")
_STATIC = ["Conv", "ConvTranspose", "MatMul", "Gemm", "MaxPool", "Add"]
_DYNAMIC = ["MatMul", "Gemm", "LSTM"]
_QUANTISED = ("QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM")


def recurrent_operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """The operators of a graph that go through a sequence step by step."""
    return tuple(sorted({node.op_type for node in all_nodes(model.graph.node)} & set(RECURRENT)))


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that computes in float16; its inputs and outputs keep their types.

    Raises:
        ConversionError: It cannot be loaded.
    """
    half: onnx.ModelProto = convert_float_to_float16(_copy(model), keep_io_types=True)
    OnnxModel(half).topological_sort(is_deterministic=True)  # the casts are put at the end
    check_model(half)
    return half


def quantise_dynamically(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights as 8-bit integers, activations quantised while it runs; for recurrent networks on the CPU.

    Args:
        model: The graph. Of its recurrent operators, only LSTM is quantised.

    Raises:
        ConversionError: There is nothing to quantise, or it cannot be loaded.
    """

    def quantise(path: Path) -> None:
        # 7 bits: processors without VNNI add up pairs of products in 16 bits.
        quantize_dynamic(
            _copy(model), path, op_types_to_quantize=_DYNAMIC, weight_type=QuantType.QInt8, reduce_range=True
        )

    return _quantised(model, quantise)


def quantise_statically(model: onnx.ModelProto, batches: Iterable[Arrays]) -> onnx.ModelProto:
    """Weights and activations as 8-bit integers; for convolutional networks.

    Args:
        model: The graph.
        batches: Its inputs by name, as real as can be: they set the ranges.

    Raises:
        ConversionError: There is nothing to quantise, or it cannot be loaded.
    """

    def quantise(path: Path) -> None:
        quantize_static(
            _copy(model),
            path,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_STATIC,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )

    return _quantised(model, quantise)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # an untyped library
    def __init__(self, batches: Iterable[Arrays]) -> None:
        self._batches: Iterator[Arrays] = iter(batches)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _quantised(model: onnx.ModelProto, quantise: Any) -> onnx.ModelProto:  # noqa: ANN401 - a local function
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantiser tells the root logger of advice that does not apply
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "quantised.onnx"
            quantise(path)
            result = onnx.load(path)
    except Exception as error:  # the quantiser raises all kinds
        msg = f"graph {model.graph.name} cannot be quantised: {str(error).strip().partition(chr(10))[0]}"
        raise ConversionError(msg) from error
    finally:
        root.setLevel(level)
    if not any(node.op_type in _QUANTISED for node in all_nodes(result.graph.node)):
        msg = f"graph {model.graph.name} has nothing to quantise: leave serving.quantization out"
        raise ConversionError(msg)
    used = {node.domain for node in all_nodes(result.graph.node)} | {""}
    versions = {entry.domain: entry.version for entry in result.opset_import}
    del result.opset_import[:]
    result.opset_import.extend(onnx.helper.make_opsetid(domain, versions[domain]) for domain in sorted(used))
    result.ir_version = model.ir_version
    result.producer_name, result.producer_version = "radserve", ""
    del result.metadata_props[:]
    check_model(result)
    return result


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, with each operator set named once: the quantiser counts them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    del copy.opset_import[:]
    copy.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))
    return copy
