"""Joins graphs into one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from onnx import compose

from radserve.errors import ConversionError
from radserve_export.graphs.checked import check_model, signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx


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
        compose.add_prefix(model, f"{prefix}/", rename_inputs=False, rename_outputs=False)
        for prefix, model in parts.items()
    ]
    for before, after in pairwise(inner):
        given, taken = set(signature(before)[1]), set(signature(after)[0])
        if {tensor.name for tensor in given} != {tensor.name for tensor in taken}:
            names = (sorted(tensor.name for tensor in side) for side in (taken, given))
            msg = "graph {} takes {}, but is given {}".format(after.graph.name, *names)
            raise ConversionError(msg)
    joined = inner[0]
    for model in inner[1:]:
        joined = compose.merge_models(joined, model, io_map=[(o.name, o.name) for o in joined.graph.output])
    joined.graph.name = name
    joined.producer_name = "radserve"
    check_model(joined)
    return joined
