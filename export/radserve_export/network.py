"""A trained network as the rest of the exporter sees it: graphs, and the originals to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from radserve.contracts import TensorSpec  # noqa: TC001 - msgspec reads Conversion's fields when it runs

if TYPE_CHECKING:
    import onnx

Arrays = Mapping[str, NDArray[Any]]
Runner = Callable[[Arrays], dict[str, NDArray[Any]]]

ENCODER, DECODER = "encoder", "decoder"


class Form(Enum):
    """What a model file is made into.

    Attributes:
        PLAIN: One input and one output, NETWORK_INPUT and NETWORK_OUTPUT.
        NAMED: Any number of them, named after the model's own layers.
        EVIDENCE: As PLAIN, and a part of that name: the same graph with a second
            input, EXPLAINED, and a second output, the evidence map.
        GENERATION: One graph from token ids to the generated ones (graphs.generation),
            and what it is made of, the parts ENCODER and DECODER.
    """

    PLAIN = "plain"
    NAMED = "named"
    EVIDENCE = "evidence"
    GENERATION = "generation"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One graph of a converted model.

    Attributes:
        graph: The graph, batch axis free.
        reference: The original, with the same names of inputs and outputs.
    """

    graph: onnx.ModelProto
    reference: Runner


@dataclass(frozen=True, kw_only=True)
class Network(Part):
    """A converted network.

    Attributes:
        graph: The network in ONNX, batch axis free.
        reference: The original, with the same names of inputs and outputs.
        vocabulary: What integers fed to it must stay below; None if nothing looks them up.
        source_sha256: Hash of the trained model's file.
        tools: Versions of what read and converted it.
        tokenizer: ``tokenizer.json`` made of the model's own text layer; None where it has none.
        parts: Further graphs made of the same model, by the name of what they are for.
    """

    vocabulary: int | None
    source_sha256: str
    tools: dict[str, str]
    tokenizer: bytes | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a generator chooses its tokens.

    Attributes:
        start: Id of the token that every text begins with.
        end: Id of the token that ends it.
        vocabulary: Ids are below it; what a larger network gives beyond is not chosen.
        max_tokens: Longest text, in tokens.
        beams: Texts followed at the same time; 1 is greedy.
        length_penalty: Finished beams are compared by log probability divided by length to this power.
    """

    start: int
    end: int
    vocabulary: int
    max_tokens: int
    beams: int
    length_penalty: float


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How to convert a model.

    Attributes:
        form: What to make of it.
        inputs: What it will be fed, for models that do not say it themselves
            (subclassed ones): shapes without the batch axis, dtypes; names are ignored.
        decoding: How a generator chooses its tokens; None for all others.
        ends_in_activation: Whether an evidence map's network gives probabilities:
            the logits that the map is of lie before them.
    """

    form: Form
    inputs: tuple[TensorSpec, ...] = ()
    decoding: Decoding | None = None
    ends_in_activation: bool = True
