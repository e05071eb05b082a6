"""Joins graphs into one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from onnx import compose

from radserve.errors import ConversionError
from radserve_export.graphs.checked import check_model

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
        given, taken = {o.name for o in before.graph.output}, {i.name for i in after.graph.input}
        if given != taken:
            msg = f"graph {after.graph.name} takes {sorted(taken)}, but is given {sorted(given)}"
            raise ConversionError(msg)
    joined = inner[0]
    for model in inner[1:]:
        try:
            joined = compose.merge_models(joined, model, io_map=[(o.name, o.name) for o in joined.graph.output])
        except ValueError as error:
            msg = f"{model.graph.name} does not fit what comes before it: {error}"
            raise ConversionError(msg) from error
    joined.graph.name = name
    joined.producer_name = "radserve"
    check_model(joined)
    return joined
