"""The search of ``graphs.generation`` in numpy and float64, one row after the other, around any decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import IS_COMPLETE, LOG_PROBABILITY
from radserve_export.graphs import GENERATED_IDS
from radserve_export.graphs.checked import signature
from radserve_export.graphs.generation import LOGITS, NEXT, PADDING, TARGET_IDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Decoding, Part, Runner

MARGIN = "MARGIN"
OWN_LOG_PROBABILITY, REGRET = "OWN_LOG_PROBABILITY", "REGRET"


def step_of(decoder: Part) -> Runner:
    """One step of a decoder's original, as ``decode`` takes it: words come as int64."""
    taken, _ = signature(decoder.graph)
    dtype = {tensor.name: tensor.dtype.numpy for tensor in taken}[TARGET_IDS]
    return lambda feeds: decoder.reference({**feeds, TARGET_IDS: feeds[TARGET_IDS].astype(dtype)})


@dataclass
class _Beam:
    """A text in the making: its words, the end token included, and its log probability."""

    words: list[int]
    score: float
    is_ended: bool = False

    def rank(self, how: Decoding) -> float:
        """What it is compared by; of an open one, the best that it can reach."""
        length = len(self.words) if self.is_ended else how.max_tokens
        return self.score / math.pow(length, how.length_penalty)


@dataclass
class _Row:
    """The search for one row's text.

    Attributes:
        beams: Its texts, the most probable one first.
        margin: How close the closest of its decisions was, in log probability.
        is_done: No open beam can overtake the best finished one.
    """

    beams: list[_Beam]
    margin: float = np.inf
    is_done: bool = False

    def advance(self, log_probabilities: NDArray[np.float64], how: Decoding) -> list[int]:
        """Choose the next word of each beam; returns which beam each of the new ones goes on from."""
        if self.is_done:
            return list(range(how.beams))
        nothing = np.full(log_probabilities.shape[-1], -np.inf)
        nothing[PADDING] = 0
        sums = np.stack(
            [
                beam.score + (nothing if beam.is_ended else told)
                for beam, told in zip(self.beams, log_probabilities, strict=True)
            ]
        ).reshape(-1)
        order = np.argsort(-sums, kind="stable")
        if len(order) > how.beams:
            self._decide(sums[order[how.beams - 1]], sums[order[how.beams]])
        parents, words = np.divmod(order[: how.beams], log_probabilities.shape[-1])
        self.beams = [
            self._continued(self.beams[parent], int(word), float(score), how)
            for parent, word, score in zip(parents, words, sums[order[: how.beams]], strict=True)
        ]
        self._finish(how)
        return [int(parent) for parent in parents]

    @staticmethod
    def _continued(beam: _Beam, word: int, score: float, how: Decoding) -> _Beam:
        # Padding goes on from what is finished; or, with a score of minus infinity, fills up the beams.
        if word == PADDING:
            return replace(beam, score=score)
        return _Beam(words=[*beam.words, word], score=score, is_ended=word == how.end)

    def _finish(self, how: Decoding) -> None:
        finished = max((beam.rank(how) for beam in self.beams if beam.is_ended), default=-np.inf)
        rival = max((beam.rank(how) for beam in self.beams if not beam.is_ended), default=-np.inf)
        self._decide(finished, rival)
        self.is_done = finished >= rival

    def best(self, how: Decoding) -> _Beam:
        """The answer."""
        ranks = np.array([beam.rank(how) for beam in self.beams])
        if len(ranks) > 1:
            self._decide(*np.sort(ranks)[:-3:-1])
        return self.beams[int(ranks.argmax())]

    def _decide(self, one: float, other: float) -> None:
        if np.isfinite(one) and np.isfinite(other):
            self.margin = min(self.margin, abs(float(one - other)))


def decode(decoder: Runner, memory: Arrays, how: Decoding) -> dict[str, NDArray[np.generic]]:
    """Write a text for each row.

    Args:
        decoder: One step, as ``generation_graph`` takes it.
        memory: What the encoder gives.
        how: The search.

    Returns:
        What ``generation_graph`` gives, and MARGIN ``(batch, 1)`` float64: how much
        a log probability would have to change for another text to be chosen.
    """
    count = len(next(iter(memory.values())))
    rows = [_Row([_Beam([], 0.0)] + [_Beam([], -np.inf) for _ in range(how.beams - 1)]) for _ in range(count)]
    feeds = {name: np.repeat(array, how.beams, axis=0) for name, array in memory.items()}
    words = np.full((count * how.beams, 1), how.start)
    for _ in range(how.max_tokens):
        if all(row.is_done for row in rows):
            break
        answers = decoder({TARGET_IDS: words, **feeds})
        told = _log_probabilities(answers[LOGITS][:, 0], how).reshape(count, how.beams, -1)
        parents = [
            number * how.beams + parent for number, row in enumerate(rows) for parent in row.advance(told[number], how)
        ]
        feeds |= {name.removesuffix(NEXT): array[parents] for name, array in answers.items() if name.endswith(NEXT)}
        words = np.array([[(beam.words or [how.start])[-1]] for row in rows for beam in row.beams])
    return _arrays([row.best(how) for row in rows], [row.margin for row in rows], how)


def own_judgement(decoder: Runner, memory: Arrays, written: Arrays, how: Decoding) -> dict[str, NDArray[np.float64]]:
    """What the decoder itself says of texts that were written already, read word by word.

    Args:
        decoder: As for ``decode``.
        memory: As for ``decode``.
        written: GENERATED_IDS and IS_COMPLETE, as ``decode`` gives them.
        how: The search that they come from.

    Returns:
        OWN_LOG_PROBABILITY ``(batch, 1)``, minus infinity where a word could not
        have been chosen; and REGRET ``(batch, 1)``: by how much the best word was
        more probable than the one written, at the worst place. A beam search may
        give up the best word for a better text: its REGRET is 0.
    """
    ids, ended = written[GENERATED_IDS], written[IS_COMPLETE][:, 0]
    lengths = (ids != PADDING).sum(axis=-1)
    total, regret = np.zeros(len(ids)), np.zeros(len(ids))
    feeds, words = dict(memory), np.full((len(ids), 1), how.start)
    for place in range(min(how.max_tokens, int(lengths.max()) + 1)):
        answers = decoder({TARGET_IDS: words, **feeds})
        told = _log_probabilities(answers[LOGITS][:, 0], how)
        chosen = np.where(place < lengths, ids[:, place], how.end).astype(np.int64)
        of_chosen = told[np.arange(len(ids)), chosen]
        counts = (place < lengths) | ((place == lengths) & ended)
        total += np.where(counts, of_chosen, 0)
        regret = np.maximum(regret, np.where(counts, told.max(axis=-1) - of_chosen, 0))
        feeds |= {name.removesuffix(NEXT): array for name, array in answers.items() if name.endswith(NEXT)}
        words = chosen[:, np.newaxis]
    regret = regret if how.beams == 1 else np.zeros_like(regret)
    return {OWN_LOG_PROBABILITY: total[:, np.newaxis], REGRET: regret[:, np.newaxis]}


def _log_probabilities(logits: NDArray[np.generic], how: Decoding) -> NDArray[np.float64]:
    values = logits.astype(np.float64)
    highest = values.max(axis=-1, keepdims=True)
    told: NDArray[np.float64] = values - highest - np.log(np.exp(values - highest).sum(axis=-1, keepdims=True))
    told[:, [PADDING, how.start]] = -np.inf
    told[:, how.vocabulary :] = -np.inf
    return told


def _arrays(texts: list[_Beam], margins: list[float], how: Decoding) -> dict[str, NDArray[np.generic]]:
    ids = np.full((len(texts), how.max_tokens), PADDING, np.int32)
    for row, text in zip(ids, texts, strict=True):
        words = [word for word in text.words if word != how.end]
        row[: len(words)] = words
    return {
        GENERATED_IDS: ids,
        IS_COMPLETE: np.array([[text.is_ended] for text in texts]),
        LOG_PROBABILITY: np.array([[text.score] for text in texts], np.float32),
        MARGIN: np.array(margins)[:, None],
    }
