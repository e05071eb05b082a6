"""A configuration against its graphs and its label files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from radserve_export.checks.model import Tensor, graph_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve_export.checks.model import Problem, ServedModel
    from radserve_export.checks.pbtxt import Field


def graph_problems(model: ServedModel) -> Iterator[Problem]:
    """What a configuration says otherwise than the graphs that it serves."""
    for version in model.served():
        if version in model.graphs:
            yield from _of_version(model, version)


def _of_version(model: ServedModel, version: int) -> Iterator[Problem]:
    batched = model.config.max_batch_size > 0
    where = f"the graph of version {version}"
    for side in ("input", "output"):
        entries = {entry.name: entry for entry in getattr(model.config, side)}
        if not entries:
            continue  # the server is to find them out
        found = graph_tensors(model.graphs[version], side, batched=batched)
        whole = graph_tensors(model.graphs[version], side, batched=False)
        for name, entry in entries.items():
            place = model.text.keyed(side, name)
            if name not in found:
                yield place.at("name").line, f"{side} {name} is absent in {where}, which has {_listed(found)}"
                continue
            first = whole[name].dims[:1]
            if batched and first != (-1,):
                line = model.text.at("max_batch_size").line
                yield line, f"batches need a free first axis, but that of {name} is {list(first)} in {where}"
                continue
            dims = entry.reshape.shape if entry.HasField("reshape") else entry.dims
            if not entry.dims:
                continue  # told by itself
            here = Tensor(kind=entry.data_type, dims=tuple(dims), batched=batched)
            if not here.fits(found[name]):
                yield _line(place, here, found[name]), f"{side} {name} is {here} here, but {found[name]} in {where}"
        if side == "input":
            for name in sorted(found.keys() - entries.keys()):
                yield model.text.at("input").line, f"input {name} is absent here, but {found[name]} in {where}"


def _line(place: Field, here: Tensor, there: Tensor) -> int:
    if here.kind != there.kind:
        return place.at("data_type").line
    return place.at("reshape" if place.all("reshape") else "dims").line


def _listed(names: dict[str, Tensor]) -> str:
    return ", ".join(sorted(names)) or "none"


def label_problems(model: ServedModel) -> Iterator[Problem]:
    """Label files that are not there, or whose lines are not the output's values."""
    for output in model.config.output:
        if not output.label_filename:
            continue
        line = model.text.keyed("output", output.name).at("label_filename").line
        lines = model.labels.get(output.label_filename)
        if lines is None:
            yield line, f"names {output.label_filename}, which is not there"
        elif -1 not in output.dims and math.prod(output.dims) != len(lines):
            yield line, f"{output.name} has {list(output.dims)} values, {output.label_filename} {len(lines)} lines"
