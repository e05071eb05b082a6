"""A tiny encoder and decoder of random weights, as graphs, as numpy, and searched by a slow, plain search."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from radserve_export.graphs import BATCH, NETWORK_INPUT
from radserve_export.graphs.checked import new_model
from radserve_export.graphs.generation import LOGITS, TARGET_IDS, generation_graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from radserve_export.network import Decoding

START, END = 1, 2
UNITS = 6


@dataclass(frozen=True)
class Tiny:
    """``state' = tanh(embedding[word] + state @ recurrent + memory)``, ``logits = state' @ output``.

    Attributes:
        source: What each source id adds to the memory; row 0, the padding, adds nothing.
        embedding: One row a word.
        recurrent: Of the state.
        output: One column a word.
    """

    source: NDArray[np.float32]
    embedding: NDArray[np.float32]
    recurrent: NDArray[np.float32]
    output: NDArray[np.float32]

    @classmethod
    def random(cls, seed: int, *, vocabulary: int = 7, end_bias: float = 0.0) -> Tiny:
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> NDArray[np.float32]:
            return rng.normal(0, 1.2, shape).astype(np.float32)

        source = normal(20, UNITS)
        source[0] = 0
        output = normal(UNITS, vocabulary)
        output[0] = 0
        output[0, END] = end_bias  # unit 0 is always near 1: a bias of the end token
        embedding, recurrent = normal(vocabulary, UNITS), normal(UNITS, UNITS)
        embedding[:, 0], recurrent[:, 0], source[:, 0] = 5, 0, 0
        return cls(source, embedding, recurrent, output)

    def encoder(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Gather", ["source", NETWORK_INPUT], ["told"]),
            helper.make_node("ReduceSum", ["told", "axis"], ["memory"], keepdims=0),
            helper.make_node("Tanh", ["memory"], ["state"]),
        ]
        return _model(
            nodes,
            {NETWORK_INPUT: (TensorProto.INT32, [BATCH, "words"])},
            {name: (TensorProto.FLOAT, [BATCH, UNITS]) for name in ("memory", "state")},
            {"source": self.source, "axis": np.array([1], np.int64)},
        )

    def decoder(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Gather", ["embedding", TARGET_IDS], ["words"]),
            helper.make_node("Squeeze", ["words", "axis"], ["word"]),
            helper.make_node("MatMul", ["state", "recurrent"], ["kept"]),
            helper.make_node("Sum", ["word", "kept", "memory"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["state_next"]),
            helper.make_node("MatMul", ["state_next", "output"], ["flat"]),
            helper.make_node("Unsqueeze", ["flat", "axis"], [LOGITS]),
        ]
        floats: dict[str, tuple[int, list[Any]]] = {
            name: (TensorProto.FLOAT, [BATCH, UNITS]) for name in ("memory", "state")
        }
        return _model(
            nodes,
            {TARGET_IDS: (TensorProto.INT32, [BATCH, 1]), **floats},
            {
                LOGITS: (TensorProto.FLOAT, [BATCH, 1, self.output.shape[1]]),
                "state_next": (TensorProto.FLOAT, [BATCH, UNITS]),
            },
            {
                "embedding": self.embedding,
                "recurrent": self.recurrent,
                "output": self.output,
                "axis": np.array([1], np.int64),
            },
        )

    def graph(self, how: Decoding) -> onnx.ModelProto:
        return generation_graph(self.encoder(), self.decoder(), how)

    def encode(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        memory = self.source[ids].sum(axis=1)
        return {"memory": memory, "state": np.tanh(memory)}

    def step(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        word = self.embedding[feeds[TARGET_IDS][:, 0]]
        state = np.tanh(word + feeds["state"] @ self.recurrent + feeds["memory"])
        return {LOGITS: (state @ self.output)[:, None], "state_next": state}

    def told(self, ids: NDArray[np.int32], words: tuple[int, ...]) -> NDArray[np.float64]:
        """Log probabilities of the next word of one text, from its beginning on."""
        feeds: dict[str, NDArray[Any]] = dict(self.encode(ids[None]))
        for word in (START, *words):
            answers = self.step({**feeds, TARGET_IDS: np.array([[word]])})
            feeds["state"] = answers["state_next"]
        logits = answers[LOGITS][0, 0].astype(np.float64)
        told: NDArray[np.float64] = logits - np.log(np.exp(logits).sum())
        return told


def best_of_all(tiny: Tiny, ids: NDArray[np.int32], how: Decoding) -> tuple[tuple[int, ...], float]:
    """The best of all texts there are, found by trying every one: words, the end token included, and score."""
    allowed = [word for word in range(how.vocabulary) if word not in (0, how.start, how.end)]
    found = []
    for length in range(how.max_tokens + 1):
        for words in itertools.product(allowed, repeat=length):
            text = (*words, how.end) if length < how.max_tokens else words
            score = sum(float(tiny.told(ids, text[:place])[word]) for place, word in enumerate(text))
            found.append((score / len(text) ** how.length_penalty, text, score))
    _, text, score = max(found)
    return text, score


def beam_search(tiny: Tiny, ids: NDArray[np.int32], how: Decoding) -> tuple[tuple[int, ...], float]:
    """A textbook's beam search of one row, to its very end: words, the end token included, and score."""
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(how.max_tokens):
        longer = []
        for score, words in beams:
            if words[-1:] == (how.end,):
                longer.append((score, words))
                continue
            told = tiny.told(ids, words)
            longer += [
                (score + float(told[word]), (*words, word))
                for word in range(how.vocabulary)
                if word not in (0, how.start)
            ]
        beams = sorted(longer, key=lambda beam: -beam[0])[: how.beams]
        ranks = [(score, len(words), words[-1] == how.end) for score, words in beams]
        finished = [score / length**how.length_penalty for score, length, ended in ranks if ended]
        rivals = [score / how.max_tokens**how.length_penalty for score, _, ended in ranks if not ended]
        if max(finished, default=-np.inf) >= max(rivals, default=-np.inf):
            break

    def rank(beam: tuple[float, tuple[int, ...]]) -> float:
        length = len(beam[1]) if beam[1][-1] == how.end else how.max_tokens
        return beam[0] / math.pow(length, how.length_penalty)

    score, words = max(beams, key=rank)
    return words, score


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    weights: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *how) for name, how in inputs.items()],
        [helper.make_tensor_value_info(name, *how) for name, how in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return new_model(graph)
