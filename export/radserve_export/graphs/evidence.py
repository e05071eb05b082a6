"""What a graph with an evidence map says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from radserve.contracts import EVIDENCE, Evidence
from radserve.errors import ConversionError
from radserve_export.graphs.checked import signature

if TYPE_CHECKING:
    import onnx

_PROPERTY = "radserve.evidence"


def describe_evidence(model: onnx.ModelProto, layer: str, region: tuple[float, float, float, float] | None) -> None:
    """Write into a graph where its evidence map comes from.

    Args:
        model: Has an output EVIDENCE; it is changed.
        layer: The convolution's name.
        region: The part of the input that the map covers; see Evidence.
    """
    told = msgspec.json.encode({"layer": layer, "region": region}).decode()
    model.metadata_props.add(key=_PROPERTY, value=told)


def evidence_of(model: onnx.ModelProto) -> Evidence | None:
    """The evidence map of a converted network; None if it gives none.

    Raises:
        ConversionError: It does not say where it comes from.
    """
    given = {tensor.name: tensor.dims for tensor in signature(model, batched=False)[1]}
    if EVIDENCE not in given:
        return None
    told = {entry.key: entry.value for entry in model.metadata_props}.get(_PROPERTY, "null")
    try:
        _, rows, columns = given[EVIDENCE]
        return msgspec.convert(msgspec.json.decode(told) | {"rows": rows, "columns": columns}, Evidence)
    except (TypeError, ValueError) as error:
        msg = f"graph {model.graph.name} does not say what its evidence map shows: {error}"
        raise ConversionError(msg) from error
