"""What every graph must satisfy before it is used, and its signature in Triton's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
from onnx import TensorProto

from radserve.contracts import Datatype, TensorSpec
from radserve.errors import ConversionError
from radserve_export.graphs import IR_VERSION, OPSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_DATATYPES: dict[int, Datatype] = {
    TensorProto.BOOL: Datatype.BOOL,
    TensorProto.UINT8: Datatype.UINT8,
    TensorProto.UINT16: Datatype.UINT16,
    TensorProto.UINT32: Datatype.UINT32,
    TensorProto.UINT64: Datatype.UINT64,
    TensorProto.INT8: Datatype.INT8,
    TensorProto.INT16: Datatype.INT16,
    TensorProto.INT32: Datatype.INT32,
    TensorProto.INT64: Datatype.INT64,
    TensorProto.FLOAT16: Datatype.FP16,
    TensorProto.FLOAT: Datatype.FP32,
    TensorProto.DOUBLE: Datatype.FP64,
    TensorProto.STRING: Datatype.BYTES,
}
QUANTISED_LSTM = ("com.microsoft", "DynamicQuantizeLSTM")
ELEMENT_TYPES = {datatype: element for element, datatype in _DATATYPES.items()}


def new_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of one graph, with the versions that the served models have, checked.

    Raises:
        ConversionError: As check_model.
    """
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="radserve",
    )
    check_model(model)
    return model


def check_model(model: onnx.ModelProto) -> None:
    """Refuse what a Triton container could not load.

    Raises:
        ConversionError: An operator is no ONNX operator, the model is malformed,
            or ONNX Runtime does not load it.
    """
    check_operators(model)
    try:
        onnx.checker.check_model(model, full_check=True)
        open_session(model)
    # ONNX Runtime's own exceptions share no base below Exception.
    except Exception as error:
        msg = f"graph {model.graph.name} cannot be loaded: {str(error).strip().partition(chr(10))[0]}"
        raise ConversionError(msg) from error


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that are not ONNX' own, but for one that quantising makes, which ONNX Runtime has.

    Raises:
        ConversionError: Names the operator and the layer it comes from.
    """
    for node in all_nodes(model.graph.node):
        if (node.domain, node.op_type) == QUANTISED_LSTM:
            continue
        if node.domain or not onnx.defs.has(node.op_type, max_inclusive_version=OPSET):
            where = node.name.rpartition("/")[0] or node.name
            msg = f"{where}: there is no ONNX operator for {node.op_type}: replace that layer"
            raise ConversionError(msg)


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """All nodes, those of loop and branch bodies included."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g.node)


def open_session(model: onnx.ModelProto, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Chain:
    """Graphs run one after the other, each taking what it needs by tensor name."""

    def __init__(self, models: Sequence[onnx.ModelProto]) -> None:
        self._sessions = [open_session(model, threads=2) for model in models]

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the chain.

        Args:
            feeds: The first graphs' inputs, by name.

        Returns:
            Every tensor that a graph put out, by name.

        Raises:
            ConversionError: ONNX Runtime fails.
        """
        known = dict(feeds)
        made: dict[str, NDArray[Any]] = {}
        for session in self._sessions:
            names = [value.name for value in session.get_outputs()]
            taken = {value.name: known[value.name] for value in session.get_inputs()}
            try:
                answers = session.run(names, taken)
            # As above.
            except Exception as error:
                msg = f"the graph cannot be run: {str(error).strip().partition(chr(10))[0]}"
                raise ConversionError(msg) from error
            made.update(zip(names, answers, strict=True))
            known.update(made)
        return made


def signature(model: onnx.ModelProto, *, batched: bool = True) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a graph.

    Args:
        model: Any ONNX model.
        batched: Whether the first axis is the batch, and left out.

    Raises:
        ConversionError: An element type is not Triton's, or a shape is out of bounds.
    """
    graph = model.graph
    constants = {initializer.name for initializer in graph.initializer}
    inputs = tuple(_tensor(value, batched=batched) for value in graph.input if value.name not in constants)
    return inputs, tuple(_tensor(value, batched=batched) for value in graph.output)


def _tensor(value: onnx.ValueInfoProto, *, batched: bool) -> TensorSpec:
    described = value.type.tensor_type
    axes = described.shape.dim
    datatype = _DATATYPES.get(described.elem_type)
    if datatype is None or (batched and (not axes or axes[0].HasField("dim_value"))):
        msg = f"tensor {value.name} has no free batch axis, or an element type that Triton has not"
        raise ConversionError(msg)
    dims = tuple(int(axis.dim_value) if axis.HasField("dim_value") else -1 for axis in axes)
    try:
        return TensorSpec(name=value.name, dtype=datatype, dims=dims[1:] if batched else dims)
    except ValueError as error:
        raise ConversionError(str(error)) from error
