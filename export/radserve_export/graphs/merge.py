"""Joins graphs into one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import onnx
from onnx import compose

from radserve.errors import ConversionError
from radserve_export.graphs.checked import check_model, signature

if TYPE_CHECKING:
    from collections.abc import Mapping


def merge(parts: Mapping[str, onnx.ModelProto], name: str) -> onnx.ModelProto:
    """Join graphs, each feeding all its outputs to the next.

    Args:
        parts: Graphs in their order; the key prefixes the names inside each.
        name: Name of the joined graph.

    Returns:
        The joined model, with the first graph's inputs and the last one's outputs.

    Raises:
        ConversionError: A graph does not take what the one before gives.
    """
    inner = [
        prefixed(model, f"{prefix}/", rename_inputs=False, rename_outputs=False) for prefix, model in parts.items()
    ]
    for before, after in pairwise(inner):
        given, taken = ({tensor.name for tensor in side} for side in (signature(before)[1], signature(after)[0]))
        if given != taken:
            msg = f"graph {after.graph.name} takes {sorted(taken)}, but is given {sorted(given)}"
            raise ConversionError(msg)
    joined = inner[0]
    for model in inner[1:]:
        fed = [(output.name, output.name) for output in joined.graph.output]
        joined = compose.merge_models(joined, model, io_map=fed)
    joined.graph.name = name
    joined.producer_name = "radserve"
    check_model(joined)
    return joined


def prefixed(model: onnx.ModelProto, prefix: str, **options: bool) -> onnx.ModelProto:
    """A copy with a prefix on all names, as ``onnx.compose.add_prefix`` makes it.

    That function alone forgets the weights that the body of a loop reads from the graph around it.

    Args:
        model: The model.
        prefix: Put before each name.
        options: Those of ``onnx.compose.add_prefix_graph``.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {weight.name: f"{prefix}{weight.name}" for weight in copy.graph.initializer}
    compose.add_prefix_graph(copy.graph, prefix, inplace=True, name_map=weights, **options)
    return copy
