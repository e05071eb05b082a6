"""Which steps a public model consists of, and whether they fit together."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from radserve.contracts import GENERATED_TEXT, TEXT, TOKEN_COUNT, Datatype, Task, TensorSpec
from radserve_export.graphs import GENERATED_IDS, TOKEN_IDS
from radserve_export.graphs.checked import signature
from radserve_export.graphs.evidence import explain_most_probable
from radserve_export.graphs.merge import merge
from radserve_export.graphs.preprocess import preprocess_graph, take_token_ids
from radserve_export.network import Form
from radserve_export.tasks import rules_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from radserve_export.network import Network
    from radserve_export.spec import Spec
    from radserve_export.tokenizer import TextTokenizer

GRAPH_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of an ensemble.

    Attributes:
        name: The step's model name.
        backend: ``onnxruntime`` or ``python``.
        inputs: What it takes, without the batch axis.
        outputs: What it gives.
        files: Contents of its version folder.
        graph: Its graph; None for a python step.
        parameters: Parameters of its configuration.
    """

    name: str
    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: Mapping[str, bytes]
    graph: onnx.ModelProto | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


def build_steps(
    spec: Spec, network: Network, wire: tuple[TensorSpec, ...], tokenizer: TextTokenizer | None
) -> tuple[Step, ...]:
    """The steps of a model, in the order of the data's flow.

    Args:
        spec: What to build.
        network: The converted network.
        wire: The public inputs; not used for ``task: tensors``.
        tokenizer: That of a text model.

    Raises:
        ConversionError: The parts do not fit.
    """
    if spec.task is Task.TENSORS:
        return (_graph_step(f"{spec.name}_network", network.graph, batched=spec.serving.max_batch_size > 0),)
    steps: list[Step] = []
    parts: dict[str, onnx.ModelProto] = {}
    max_tokens = getattr(spec.input, "max_tokens", 0)
    if tokenizer is not None:
        steps.append(_tokenize_step(spec.name, max_tokens, tokenizer))
        parts["network"] = take_token_ids(network.graph, max_tokens)
    else:
        parts["preprocess"] = preprocess_graph(wire[0], spec.network_input)
        parts["network"] = network.graph
    parts |= rules_of(spec.task).trailing_graphs(spec)
    if spec.evidence:  # the map needs what the probabilities choose, so that the two are one step
        explained = network.parts[Form.EVIDENCE.value].graph
        parts["network"] = explain_most_probable(explained, parts.pop("postprocess"))
    if spec.serving.fuse:
        parts = {"pipeline": merge(parts, f"{spec.name}_pipeline")}
    steps += (_graph_step(f"{spec.name}_{suffix}", graph) for suffix, graph in parts.items())
    if spec.generation is not None and tokenizer is not None:
        steps.append(_detokenize_step(spec.name, spec.generation.max_tokens, tokenizer))
    return tuple(steps)


def _graph_step(name: str, graph: onnx.ModelProto, *, batched: bool = True) -> Step:
    inputs, outputs = signature(graph, batched=batched)
    files_ = {GRAPH_FILE: graph.SerializeToString(deterministic=True)}
    return Step(
        name=name,
        backend="onnxruntime",
        inputs=inputs,
        outputs=outputs,
        files=files_,
        graph=graph,
    )


def _source(step: str) -> bytes:
    return files("radserve_export").joinpath("steps", step, "model.py").read_bytes()


def _tokenize_step(name: str, max_tokens: int, tokenizer: TextTokenizer) -> Step:
    return Step(
        name=f"{name}_tokenize",
        backend="python",
        inputs=(TensorSpec(name=TEXT, dtype=Datatype.BYTES, dims=(1,)),),
        outputs=(
            TensorSpec(name=TOKEN_IDS, dtype=Datatype.INT32, dims=(max_tokens,)),
            TensorSpec(name=TOKEN_COUNT, dtype=Datatype.INT32, dims=(1,)),
        ),
        files={"model.py": _source("tokenize"), TOKENIZER_FILE: tokenizer.content},
        parameters={"max_tokens": str(max_tokens)},
    )


def _detokenize_step(name: str, max_tokens: int, tokenizer: TextTokenizer) -> Step:
    return Step(
        name=f"{name}_detokenize",
        backend="python",
        inputs=(TensorSpec(name=GENERATED_IDS, dtype=Datatype.INT32, dims=(max_tokens,)),),
        outputs=(TensorSpec(name=GENERATED_TEXT, dtype=Datatype.BYTES, dims=(1,)),),
        files={"model.py": _source("detokenize"), TOKENIZER_FILE: tokenizer.content},
    )
