"""An ONNX file by itself: what ONNX Runtime would refuse to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import external_data_helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from radserve_export.graphs.checked import all_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OF_TENSORRT = "trt.plugins"  # the domain of plugins that ONNX Runtime hands on


def runtime_problems(model: onnx.ModelProto, path: Path, *, has_own_operators: bool) -> list[str]:
    """Why ONNX Runtime would not load a graph.

    Args:
        model: The graph, without weights that are kept in other files.
        path: Its file; those weights lie beside it.
        has_own_operators: Whether the configuration brings a library of operators.
    """
    found = list(_version_problems(model)) or list(_operator_problems(model, has_own_operators=has_own_operators))
    # ONNX' checker knows nothing of the operators that ONNX Runtime adds to ONNX' own domain.
    if found or not all(onnx.defs.has(node.op_type) for node in _nodes(model) if not _domain(node)):
        return found
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        return [f"is no valid graph: {' '.join(str(error).split())}"]
    return []


def weights_problems(model: onnx.ModelProto, path: Path) -> Iterator[str]:
    """Weights kept in another file must lie beside the graph.

    Args:
        model: The graph.
        path: Its file.
    """
    places = {
        external_data_helper.ExternalDataInfo(tensor).location
        for tensor in external_data_helper._get_all_tensors(model)  # noqa: SLF001 - ONNX has no public way to ask
        if external_data_helper.uses_external_data(tensor)
    }
    for place in sorted(places):
        other = path.parent / place
        if not other.resolve().is_relative_to(path.parent.resolve()):
            yield f"keeps weights outside its folder, in {place}"
        elif not other.is_file():
            yield f"keeps weights in {place}, which is not there"


def _version_problems(model: onnx.ModelProto) -> Iterator[str]:
    if model.ir_version > onnx.IR_VERSION:
        yield f"has IR version {model.ir_version}: the newest is {onnx.IR_VERSION}"
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            yield f"has opset {opset.version}: the newest is {newest}"


def _operator_problems(model: onnx.ModelProto, *, has_own_operators: bool) -> Iterator[str]:
    """Operators that neither ONNX Runtime has, nor the graph itself or the configuration brings."""
    known = {(schema.domain, schema.name) for schema in get_all_operator_schema()}
    known |= {(function.domain, function.name) for function in model.functions}
    domains = {domain for domain, _ in known}
    used = {(_domain(node), node.op_type) for node in _nodes(model)}
    for domain, name in sorted(used - known):
        if domain != _OF_TENSORRT and not (has_own_operators and domain not in domains):
            yield f"uses {f'{domain}::' if domain else ''}{name}, an operator that ONNX Runtime has not"


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from all_nodes(model.graph.node)
    for function in model.functions:
        yield from all_nodes(function.node)


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain
