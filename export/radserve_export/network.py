"""A trained network as the rest of the exporter sees it: a graph, and the original to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

Arrays = Mapping[str, NDArray[Any]]
Runner = Callable[[Arrays], dict[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A converted network.

    Attributes:
        graph: The network in ONNX, batch axis free.
        reference: The original, with the same names of inputs and outputs.
        vocabulary: What integers fed to it must stay below; None if nothing looks them up.
        source_sha256: Hash of the trained model's file.
        tools: Versions of what read and converted it.
    """

    graph: onnx.ModelProto
    reference: Runner
    vocabulary: int | None
    source_sha256: str
    tools: dict[str, str]
