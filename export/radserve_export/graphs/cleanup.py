"""Brings a converted graph into the form that is published: small, and the same bytes each time.

The converter numbers tensors by what else the process converted before, and
leaves chains of nodes that come to a constant, or to nothing. OnnxSlim folds
and fuses them; here nodes get an order and names that follow from the graph
alone.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import onnx
import onnxslim

from radserve_export.graphs import BATCH, IR_VERSION, OPSET
from radserve_export.graphs.checked import all_nodes, check_model, check_operators

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RECURRENT = ("LSTM", "GRU", "RNN")  # their sequence is costly to keep, and optional
_LOG = logging.getLogger("radserve_export")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


def published_form(
    model: onnx.ModelProto,
    *,
    inputs: Mapping[str, Sequence[int | None]],
    outputs: Mapping[str, Sequence[int | None]],
    graph_name: str,
) -> onnx.ModelProto:
    """Clean a converted model.

    Args:
        model: As the converter made it; it is changed.
        inputs: New names of the inputs in their order, and their shapes; None is free.
        outputs: The same for the outputs.
        graph_name: Name of the graph.

    Returns:
        The cleaned, checked model.

    Raises:
        ConversionError: It cannot be loaded.
    """
    check_operators(model)
    model = _slimmed(model, list(inputs.values()))
    graph = model.graph
    _drop_unread(graph)
    shapes = {**inputs, **outputs}
    values = (*graph.input, *graph.output)
    renaming = _Names({value.name: name for value, name in zip(values, shapes, strict=True)})
    renaming.assign(graph)
    renaming.apply(graph)
    graph.name = graph_name
    for value in values:
        element = value.type.tensor_type.elem_type
        shape = [BATCH if place == 0 else axis for place, axis in enumerate(shapes[value.name])]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, shape))
    graph.doc_string = ""
    for node in all_nodes(graph.node):
        node.doc_string = ""
    used = {node.domain for node in all_nodes(graph.node)} | {""}
    model.ir_version = IR_VERSION
    versions = {entry.domain: entry.version for entry in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, versions.get(domain, OPSET)) for domain in sorted(used))
    model.producer_name, model.producer_version, model.doc_string = "radserve", "", ""
    del model.metadata_props[:]
    check_model(model)
    return model


def _slimmed(model: onnx.ModelProto, shapes: Sequence[Sequence[int | None]]) -> onnx.ModelProto:
    """Fold constants, drop dead branches, make shapes static, fuse what belongs to one operator."""
    graph = model.graph
    # The converter gives each free axis a name of its own: with the batch's everywhere, more becomes static.
    del graph.value_info[:]
    for value, shape in zip(graph.input, shapes, strict=True):
        free = [BATCH, *(f"{value.name}_{place}" for place in range(1, len(shape)))]
        named = [axis if axis is not None else free[place] for place, axis in enumerate(shape)]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, named))
    try:
        slimmed: onnx.ModelProto = onnxslim.slim(model)
    # It raises what its rules do on a graph they do not expect; without it the graph is larger, and as right.
    except Exception as error:  # noqa: BLE001 - as above
        _LOG.warning("OnnxSlim cannot clean this graph (%s): it stays as the converter made it", error)
        return model
    # OnnxSlim drops an input that nothing reads: a caller is to be told the model's own inputs.
    kept = {value.name: value for value in slimmed.graph.input}
    inputs = [kept.get(value.name, value) for value in graph.input]
    del slimmed.graph.input[:]
    slimmed.graph.input.extend(inputs)
    return slimmed


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Keep what the outputs need, in an order that follows from the graph alone."""
    producers = {name: node for node in graph.node for name in node.output if name}
    placed: set[int] = set()
    ordered: list[onnx.NodeProto] = []
    pending = [(value.name, False) for value in reversed(graph.output)]
    while pending:
        name, is_ready = pending.pop()
        node = producers.get(name)
        if node is None or id(node) in placed:
            continue
        if is_ready:
            placed.add(id(node))
            ordered.append(node)
        else:
            pending.append((name, True))
            pending.extend((needed, False) for needed in reversed(_reads(node)))
    wanted = {name for node in ordered for name in _reads(node)} | {value.name for value in graph.output}
    for node in ordered:
        if node.op_type in _RECURRENT:
            node.output[:] = [name if name in wanted else "" for name in node.output]
            while not node.output[-1]:
                node.output.pop()
    del graph.node[:]
    graph.node.extend(ordered)
    order = {name: place for place, name in enumerate(name for node in ordered for name in _reads(node))}
    initializers = sorted((i for i in graph.initializer if i.name in wanted), key=lambda i: order.get(i.name, -1))
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, and what the bodies inside it may take from around them."""
    bodies = _bodies(node)
    inner = [name for body in bodies for part in all_nodes(body.node) for name in part.input]
    return [*node.input, *inner, *(value.name for body in bodies for value in body.output)]


class _Names:
    """New names that follow from the graph: nodes with weights by layer and operator, tensors by node."""

    def __init__(self, tensors: Mapping[str, str]) -> None:
        self._tensors = dict(tensors)
        self._taken = set(tensors.values())
        self._constants: set[str] = set()
        self._weights: set[str] = set()

    def assign(self, graph: onnx.GraphProto) -> None:
        """Choose names, from the outer graph inwards: bodies read what is around them."""
        self._constants |= {initializer.name for initializer in graph.initializer}
        self._weights |= {i.name for i in graph.initializer if i.data_type in _FLOATS and math.prod(i.dims) > 1}
        for value in graph.input:
            self._tensor(value.name, value.name)
        for node in graph.node:
            # Equal nodes without weights are merged by the converter, into either one's layer.
            scope = node.name.rpartition("/")[0] if self._weights.intersection(node.input) else ""
            node.name = self._fresh(f"{scope}/{node.op_type}" if scope else node.op_type)
            for place, name in enumerate(node.input):
                if name in self._constants:
                    self._tensor(name, f"{node.name}/{_parameter(node, place)}")
            for body in _bodies(node):
                self.assign(body)
            for name in node.output:
                self._tensor(name, f"{node.name}/out")
        for initializer in graph.initializer:
            self._tensor(initializer.name, "constant")

    def apply(self, graph: onnx.GraphProto) -> None:
        """Write the chosen names."""
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            value.name = self._tensors[value.name]
        for initializer in graph.initializer:
            initializer.name = self._tensors[initializer.name]
        for node in graph.node:
            node.input[:] = [self._tensors.get(name, name) for name in node.input]
            node.output[:] = [self._tensors.get(name, name) for name in node.output]
            for number, body in enumerate(_bodies(node)):
                body.name = f"{node.name}/body{number}"
                self.apply(body)

    def _tensor(self, name: str, base: str) -> None:
        if name and name not in self._tensors:
            self._tensors[name] = self._fresh(base)

    def _fresh(self, base: str) -> str:
        new, number = base, 1
        while new in self._taken:
            number += 1
            new = f"{base}_{number}"
        self._taken.add(new)
        return new


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def _parameter(node: onnx.NodeProto, place: int) -> str:
    if not onnx.defs.has(node.op_type, node.domain):
        return str(place)
    formal = onnx.defs.get_schema(node.op_type, OPSET, node.domain).inputs
    return str(formal[place].name) if place < len(formal) else f"{formal[-1].name}{place}"
