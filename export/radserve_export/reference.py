"""The original answers: what the served graphs are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import Task, TextInput, wire_tensors
from radserve.errors import SpecError
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT, TOKEN_IDS
from radserve_export.graphs.checked import Chain, signature
from radserve_export.graphs.postprocess import postprocess_reference
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.parity import Stage, random_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from radserve.contracts import TensorSpec
    from radserve_export.ensemble import Step
    from radserve_export.network import Arrays, Network
    from radserve_export.spec import Spec
    from radserve_export.tokenizer import TextTokenizer


class Reference:
    """The served model's answers, computed by Keras, numpy and the tokenizer's own library."""

    def __init__(self, spec: Spec, network: Network, tokenizer: TextTokenizer | None) -> None:
        self._spec = spec
        self._network = network
        self._tokenizer = tokenizer

    def __call__(self, feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        """Answer as the served graphs must.

        Args:
            feeds: The one public input of a classifier, batch axis in front;
                TOKEN_IDS instead of TEXT is taken, too.
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
        output = self._network.reference({NETWORK_INPUT: taken.astype(wanted.dtype.numpy)})[NETWORK_OUTPUT]
        return postprocess_reference(np.asarray(output, np.float32), spec)


def _max_tokens(spec: Spec) -> int:
    return spec.input.max_tokens if isinstance(spec.input, TextInput) else 0


def check_fit(spec: Spec, network: Network, tokenizer: TextTokenizer | None) -> tuple[TensorSpec, ...]:
    """Compare the spec with the network's signature.

    Returns:
        The public inputs of a classifier.

    Raises:
        SpecError: What the network takes or gives is not what the spec says.
    """
    inputs, outputs = signature(network.graph)
    if spec.task is Task.TENSORS or spec.input is None:
        return ()
    wire, _ = wire_tensors(spec.task, spec.input, len(spec.labels))
    dims = wire[0].dims if tokenizer is None else (_max_tokens(spec),)
    if len(dims) != len(inputs[0].dims) or any(
        have not in (-1, want) for have, want in zip(inputs[0].dims, dims, strict=True)
    ):
        msg = f"{spec.name}: the model takes {list(inputs[0].dims)}, but the spec's input gives {list(dims)}"
        raise SpecError(msg)
    if outputs[0].dims != (len(spec.labels),):
        msg = f"{spec.name}: the model gives {list(outputs[0].dims)} values, but the spec has {len(spec.labels)} labels"
        raise SpecError(msg)
    if tokenizer is not None and network.vocabulary is not None and tokenizer.vocabulary > network.vocabulary:
        msg = (
            f"{spec.name}: the tokenizer has {tokenizer.vocabulary} tokens,"
            f" but the model's Embedding only {network.vocabulary}"
        )
        raise SpecError(msg)
    return wire


def parity_stages(
    spec: Spec, network: Network, steps: Sequence[Step], reference: Reference, tokenizer: TextTokenizer | None
) -> list[Stage]:
    """What the parity gate compares: the network alone, then all the graphs of a classifier.

    Args:
        spec: The spec.
        network: The converted network.
        steps: The steps as they will be served.
        reference: The original of a classifier.
        tokenizer: That of a text model.
    """
    limits = spec.parity.input_range
    inputs, _ = signature(network.graph)
    vocabulary = network.vocabulary
    if tokenizer is not None:
        vocabulary = min(tokenizer.vocabulary, vocabulary or tokenizer.vocabulary)

    def batch_of(tensors: Sequence[TensorSpec], batch: int, rng: np.random.Generator) -> Arrays:
        looked_up = spec.task in (Task.TENSORS, Task.TEXT_CLASSIFICATION)
        return {
            tensor.name: random_input(
                tensor,
                batch,
                rng,
                vocabulary=vocabulary if looked_up and tensor.dtype.numpy.kind in "iu" else None,
                limits=limits,
            )
            for tensor in tensors
        }

    alone = Chain([network.graph])
    if spec.task is Task.TENSORS:
        return [Stage("network", lambda n, rng: batch_of(inputs, n, rng), alone, network.reference)]
    graphs = [step for step in steps if step.graph is not None]

    def into_network(batch: int, rng: np.random.Generator) -> Arrays:
        (array,) = batch_of(graphs[0].inputs, batch, rng).values()
        scaled = array if tokenizer else preprocess_reference(array, spec.network_input)
        return {NETWORK_INPUT: scaled.astype(inputs[0].dtype.numpy)}

    chain = Chain([step.graph for step in graphs if step.graph is not None])
    return [
        Stage("network", into_network, alone, network.reference),
        Stage("pipeline", lambda n, rng: batch_of(graphs[0].inputs, n, rng), chain, reference),
    ]
