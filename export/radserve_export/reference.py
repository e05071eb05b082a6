"""The original answers: what the served graphs are compared with."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import LOG_PROBABILITY, Datatype, Task, TensorSpec, TextInput, WaveformInput, wire_tensors
from radserve.errors import SpecError
from radserve_export.graphs import NETWORK_INPUT, TOKEN_IDS
from radserve_export.graphs.checked import Chain, signature
from radserve_export.graphs.decoding import OWN_LOG_PROBABILITY, REGRET, own_judgement, step_of
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.network import DECODER, ENCODER, Conversion, Decoding, Form
from radserve_export.parity import Batch, Stage, free_lengths, random_input
from radserve_export.tasks import rules_of
from radserve_export.tokenizer import parse_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from radserve.contracts import ImageInput
    from radserve_export.ensemble import Step
    from radserve_export.network import Arrays, Network
    from radserve_export.spec import Spec
    from radserve_export.tokenizer import TextTokenizer

_CHECKED_ROWS = 8


class Reference:
    """The served model's answers, computed by Keras, numpy and the tokenizer's own library."""

    def __init__(self, spec: Spec, network: Network, tokenizer: TextTokenizer | None) -> None:
        self._spec = spec
        self._network = network
        self._tokenizer = tokenizer

    def __call__(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        """Answer as the served graphs must.

        Args:
            feeds: The one public input, batch axis in front; TOKEN_IDS instead
                of TEXT is taken, too.

        Returns:
            The public outputs, and what the task's own rules of parity need beside.
        """
        (array,) = feeds.values()
        spec = self._spec
        if self._tokenizer is None:
            taken: NDArray[np.generic] = preprocess_reference(array, spec.network_input)
        elif TOKEN_IDS in feeds:
            taken = array
        else:
            texts = [bytes(text).decode() for text in array.reshape(-1)]
            taken = self._tokenizer.token_ids(texts, _max_tokens(spec))
        (wanted,), _ = signature(self._network.graph)
        outputs = self._network.reference({NETWORK_INPUT: taken.astype(wanted.dtype.numpy)})
        return rules_of(spec.task).finish(outputs, spec)

    def texts(self, ids: NDArray[np.int32]) -> list[str]:
        """What generated ids say."""
        return [] if self._tokenizer is None else self._tokenizer.texts(ids)


def _max_tokens(spec: Spec) -> int:
    return spec.input.max_tokens if isinstance(spec.input, TextInput) else 0


def conversion_of(spec: Spec, tokenizer: TextTokenizer | None) -> Conversion:
    """What a spec's model file must be made into.

    Raises:
        SpecError: The tokenizer lacks a token that the spec names.
    """
    described = spec.input
    if spec.task is Task.TENSORS or described is None:
        return Conversion(form=Form.NAMED)
    if isinstance(described, TextInput):
        taken = TensorSpec(name=NETWORK_INPUT, dtype=Datatype.INT32, dims=(described.max_tokens,))
    else:
        (wire,), _ = wire_tensors(spec.task, described, len(spec.labels))
        taken = TensorSpec(name=NETWORK_INPUT, dtype=Datatype.FP32, dims=wire.dims)
    decoding = None
    if spec.generation is not None and tokenizer is not None:
        plan = spec.generation
        decoding = Decoding(
            start=tokenizer.id_of(plan.start),
            end=tokenizer.id_of(plan.end),
            vocabulary=tokenizer.vocabulary,
            max_tokens=plan.max_tokens,
            beams=plan.beams,
            length_penalty=plan.length_penalty,
        )
    form = Form.EVIDENCE if spec.evidence else rules_of(spec.task).form
    return Conversion(
        form=form, inputs=(taken,), decoding=decoding, ends_in_activation=spec.network_output == "probabilities"
    )


def tokenizer_of(spec: Spec, network: Network, given: TextTokenizer | None) -> TextTokenizer | None:
    """The tokenizer that the spec names, or the one made of the model's own text layer.

    Raises:
        SpecError: There are both, or a text model has neither.
    """
    if network.tokenizer is None:
        if isinstance(spec.input, TextInput) and given is None:
            msg = f"{spec.name}: the model has no text layer: name its tokenizer.json in the spec's tokenizer"
            raise SpecError(msg)
        return given
    if given is not None or not isinstance(spec.input, TextInput):
        length = signature(network.graph)[0][0].dims[-1]
        described = f"{{kind: text, languages: [en], max_tokens: {length if length > 0 else 'LONGEST'}}}"
        block = f"task: text_classification, labels, and input: {described}, with the languages that it was trained on"
        why = "leave the spec's tokenizer out" if given else f"take {block}"
        msg = f"{spec.name}: the model reads text with a layer of its own: {why}"
        raise SpecError(msg)
    return parse_tokenizer(network.tokenizer, f"the text layer of {spec.model}")


def check_fit(spec: Spec, network: Network, tokenizer: TextTokenizer | None) -> tuple[TensorSpec, ...]:
    """Compare the spec with the network's signature.

    Returns:
        The public inputs; none of ``task: tensors``.

    Raises:
        SpecError: What the network takes or gives is not what the spec says.
    """
    inputs, _ = signature(network.graph)
    if spec.task is Task.TENSORS or spec.input is None:
        return ()
    wire, _ = wire_tensors(spec.task, spec.input, len(spec.labels))
    dims = wire[0].dims if tokenizer is None else (_max_tokens(spec),)
    if len(dims) != len(inputs[0].dims) or any(
        have not in (-1, want) for have, want in zip(inputs[0].dims, dims, strict=True)
    ):
        msg = f"{spec.name}: the model takes {list(inputs[0].dims)}, but the spec's input gives {list(dims)}"
        raise SpecError(msg + _remedy(spec.input, inputs[0].dims))
    rules_of(spec.task).check_network(spec, network)
    if tokenizer is not None and network.vocabulary is not None and tokenizer.vocabulary > network.vocabulary:
        msg = (
            f"{spec.name}: the tokenizer has {tokenizer.vocabulary} tokens,"
            f" but the model's Embedding only {network.vocabulary}"
        )
        raise SpecError(msg)
    return wire


def _remedy(described: ImageInput | WaveformInput | TextInput, wanted: Sequence[int]) -> str:
    """What an input must say for a network of such dims; nothing where none would do."""
    if isinstance(described, TextInput):
        names: tuple[str, ...] = ("max_tokens",)
    elif isinstance(described, WaveformInput):
        names = ("samples", "number of leads")
    else:
        names = (*(("slices",) if len(described.grid) > 2 else ()), "rows", "columns", "photometric")  # noqa: PLR2004 - rows and columns
    photometric = {1: "MONOCHROME2", 3: "RGB"}
    if len(names) != len(wanted) or (names[-1] == "photometric" and wanted[-1] not in (-1, *photometric)):
        return ""
    said = [
        f"{name}: {photometric[size] if name == 'photometric' else size}"
        for name, size in zip(names, wanted, strict=True)
        if size > 0
    ]
    return f": it takes input: {{{', '.join(said)}}}"


def check_outputs(stage: Stage, spec: Spec) -> None:
    """Let the original answer random and real inputs, and compare with what the spec says of its output.

    Args:
        stage: The network alone.
        spec: The spec.

    Raises:
        SpecError: It is something else.
    """
    if spec.task is Task.TENSORS:
        return
    answers = [stage.reference(feeds) for _, feeds in stage.batches([_CHECKED_ROWS])]
    rules_of(spec.task).check_outputs(
        {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}, spec
    )


def parity_stages(
    spec: Spec,
    network: Network,
    steps: Sequence[Step],
    reference: Reference,
    tokenizer: TextTokenizer | None,
    *,
    real: Sequence[Batch] = (),
) -> list[Stage]:
    """What the parity gate compares: the network alone, then all the graphs together.

    Args:
        spec: The spec.
        network: The converted network.
        steps: The steps as they will be served.
        reference: The original; not used for ``task: tensors``.
        tokenizer: That of a text model.
        real: Real inputs of the first graph.
    """
    inputs, outputs = signature(network.graph)
    vocabulary = network.vocabulary
    if tokenizer is not None:
        vocabulary = min(tokenizer.vocabulary, vocabulary or tokenizer.vocabulary)
    looked_up = spec.task is Task.TENSORS or tokenizer is not None

    def batch_of(tensors: Sequence[TensorSpec], batch: int, length: int, rng: np.random.Generator) -> Arrays:
        return {
            tensor.name: random_input(
                tensor,
                batch,
                rng,
                length=length,
                vocabulary=vocabulary if looked_up and tensor.dtype.numpy.kind in "iu" else None,
                limits=spec.parity.input_range,
            )
            for tensor in tensors
        }

    def into_network(feeds: Arrays) -> Arrays:
        (array,) = feeds.values()
        scaled = array if tokenizer else preprocess_reference(array, spec.network_input)
        return {NETWORK_INPUT: scaled.astype(inputs[0].dtype.numpy)}

    names = tuple(tensor.name for tensor in outputs)
    lengths = free_lengths(inputs)
    alone = Stage("network", names, partial(batch_of, inputs), Chain([network.graph]), network.reference, lengths)
    if spec.task is Task.TENSORS:
        return [alone._replace(real=tuple(real))]
    graphs = [step for step in steps if step.graph is not None]
    chain = Chain([step.graph for step in graphs if step.graph is not None])
    make = partial(batch_of, graphs[0].inputs)
    given = tuple(tensor.name for tensor in graphs[-1].outputs)
    stages = [
        alone._replace(
            make=lambda *how: into_network(make(*how)),
            real=tuple(Batch(where, into_network(feeds)) for where, feeds in real),
        ),
        Stage("pipeline", given, make, chain, reference, lengths, tuple(real)),
    ]
    decoding = conversion_of(spec, tokenizer).decoding
    return stages if decoding is None else [*stages, _own_text(stages[-1], network, decoding)]


def _own_text(served: Stage, network: Network, decoding: Decoding) -> Stage:
    """What the graphs wrote, read by Keras: where two words are equally probable the text may differ from Keras' own.

    A few rows of each batch: Keras is asked once a word.
    """
    encoder, decoder = network.parts[ENCODER], network.parts[DECODER]
    (taken,), _ = signature(encoder.graph)

    def written(feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        return served.exported({name: array[:_CHECKED_ROWS] for name, array in feeds.items()})

    def claimed(feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        score = written(feeds)[LOG_PROBABILITY]
        return {OWN_LOG_PROBABILITY: score, REGRET: np.zeros_like(score)}

    def judged(feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        (ids,) = feeds.values()
        memory = encoder.reference({NETWORK_INPUT: ids[:_CHECKED_ROWS].astype(taken.dtype.numpy)})
        return {**own_judgement(step_of(decoder), memory, written(feeds), decoding)}

    outputs = (OWN_LOG_PROBABILITY, REGRET)
    return served._replace(name="own text", outputs=outputs, exported=claimed, reference=judged)
