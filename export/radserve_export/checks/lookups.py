"""Warm-up data that a graph cannot look up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from radserve_export.graphs.checked import all_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from radserve_export.checks.model import Problem, ServedModel

_LOOKUPS = ("Gather", "GatherElements", "GatherND")
# Operators that hand values on, and those of their inputs that they hand on.
_HANDED_ON: dict[str, slice] = {
    **dict.fromkeys(("Add", "Concat", "Mul", "Sub"), slice(None)),
    **dict.fromkeys(("Cast", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape"), slice(1)),
    **dict.fromkeys(("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"), slice(1)),
    "Where": slice(1, None),
}


def lookup_problems(model: ServedModel) -> Iterator[Problem]:
    """Random numbers for an input whose values are places in a table, such as the words of an Embedding."""
    looked_up = {
        name for version in model.served() if version in model.graphs for name in _looked_up(model.graphs[version])
    }
    for number, warmup in enumerate(model.config.model_warmup):
        for name, given in warmup.inputs.items():
            if given.random_data and name in looked_up:
                entry = model.text.at("model_warmup", number=number).keyed("inputs", name, by="key")
                line = entry.at("value", "random_data").line
                yield line, f"warms up {name} with random numbers, which may lie outside its table: say zero_data: true"


def _looked_up(model: onnx.ModelProto) -> set[str]:
    """Inputs of a graph whose values may lie outside a table in which they are looked up."""
    nodes = list(all_nodes(model.graph.node))
    makers = {name: node for node in nodes for name in node.output}
    told = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    kinds = {name: kind for name, kind in told.items() if kind}
    rows = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    found = set()
    for node in nodes:
        if node.op_type not in _LOOKUPS or len(node.input) < 2:  # noqa: PLR2004 - a table and places in it
            continue
        is_by_row = node.op_type == "Gather" and not any(one.name == "axis" and one.i for one in node.attribute)
        held = rows.get(node.input[0], 0) if is_by_row else 0
        found |= {name for name in _origins(node.input[1], makers) & kinds.keys() if not _fits(kinds[name], held)}
    return found


def _origins(name: str, makers: dict[str, onnx.NodeProto]) -> set[str]:
    """What a tensor's values come from, unchanged or shifted."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            maker = makers.get(name)
            if maker is not None and maker.op_type in _HANDED_ON:
                waiting += maker.input[_HANDED_ON[maker.op_type]]
    return seen


def _fits(kind: int, rows: int) -> bool:
    """Whether any number of a type is a row of a table; negative ones count from its end."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return dtype.kind in "iu" and np.iinfo(dtype).max < rows and -np.iinfo(dtype).min <= rows
