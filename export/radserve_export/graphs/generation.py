"""One graph from a text's token ids to those of a written one: the encoder, and a loop over the decoder's steps.

The whole search is one ONNX ``Loop``. Its body is one step of the decoder, for all
rows of a batch and all their beams at once; it ends as soon as every row is done.
Beam search keeps the most probable texts of each row; with one beam it is greedy.
Finished texts stay among the beams, and a row is done when none of its open beams
can overtake its best finished one. The other rows of its batch, for which the loop
goes on, change nothing about it: what an open beam loses, it never wins back.

Never chosen are padding, the start token and ids that the tokenizer does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from radserve.contracts import IS_COMPLETE, LOG_PROBABILITY
from radserve.errors import ConversionError, SpecError
from radserve_export.graphs import BATCH, GENERATED_IDS, NETWORK_INPUT
from radserve_export.graphs.checked import all_nodes, new_model, signature
from radserve_export.graphs.merge import prefixed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import DTypeLike

    from radserve_export.network import Decoding

TARGET_IDS = "target_ids"  # what the decoder takes beside what the encoder gives
LOGITS = "logits"  # what it gives beside new states
NEXT = "_next"  # behind a state's name where it leaves the decoder
PADDING = 0
# What the loop carries beside the decoder's states: the texts (batch * beams, longest), their last
# tokens (batch * beams, 1), scores and whether each has ended (batch, beams).
_CARRIED = {
    "written": TensorProto.INT32,
    "token": TensorProto.INT64,
    "scores": TensorProto.FLOAT,
    "ended": TensorProto.BOOL,
}
_ENCODER, _DECODER = "encoder/", "decoder/"


def generation_graph(encoder: onnx.ModelProto, decoder: onnx.ModelProto, decoding: Decoding) -> onnx.ModelProto:
    """Join an encoder and a decoder to a graph that writes whole texts.

    Args:
        encoder: From NETWORK_INPUT ``(batch, source tokens)`` to any number of tensors.
        decoder: From TARGET_IDS ``(batch, 1)`` and all that the encoder gives, under the
            same names, to LOGITS ``(batch, 1, vocabulary)`` and new states: an output
            ``NAME_next`` takes the place of the input NAME for the next token. Inputs
            without such an output stay as they are.
        decoding: The search.

    Returns:
        From NETWORK_INPUT to GENERATED_IDS ``(batch, decoding.max_tokens)`` int32, without
        start and end token, padded with 0 on the right; IS_COMPLETE ``(batch, 1)`` bool,
        whether the end token was reached; and LOG_PROBABILITY ``(batch, 1)`` float32,
        summed over the chosen tokens, the end token included.

    Raises:
        ConversionError: The two do not fit, or the result cannot be loaded.
        SpecError: The decoder does not know the start or the end token.
    """
    if len({decoding.start, decoding.end, PADDING}) < len(("start", "end", "padding")):
        msg = "the start token, the end token and the padding of a text generator must be three different tokens"
        raise ConversionError(msg)
    vocabulary = _check_fit(encoder, decoder)
    for field, token in (("start", decoding.start), ("end", decoding.end)):
        if token >= vocabulary:
            msg = (
                f"generation.{field}: the tokenizer's id of that token is {token}, but the decoder's vocabulary has"
                f" {vocabulary} ids, from 0: give the tokenizer that the model was trained with"
            )
            raise SpecError(msg)
    encoder = prefixed(encoder, _ENCODER, rename_inputs=False)
    decoder = prefixed(decoder, _DECODER)
    search = _Search(decoding, vocabulary)
    search.begin()
    constant = {
        name: search.add("Gather", f"{_ENCODER}{name}", "row_of_beam", name=f"{name}_of_beams", axis=0)
        for name in (value.name.removeprefix(_ENCODER) for value in encoder.graph.output)
    }
    search.loop(decoder, constant)
    search.choose()
    graph = helper.make_graph(
        [*encoder.graph.node, *search.nodes],
        "generation",
        list(encoder.graph.input),
        [
            helper.make_tensor_value_info(GENERATED_IDS, TensorProto.INT32, [BATCH, decoding.max_tokens]),
            helper.make_tensor_value_info(IS_COMPLETE, TensorProto.BOOL, [BATCH, 1]),
            helper.make_tensor_value_info(LOG_PROBABILITY, TensorProto.FLOAT, [BATCH, 1]),
        ],
        [*encoder.graph.initializer, *decoder.graph.initializer, *search.constants.values()],
    )
    return new_model(graph)


def _check_fit(encoder: onnx.ModelProto, decoder: onnx.ModelProto) -> int:
    """Size of the vocabulary, if the two fit."""
    given = {value.name for value in encoder.graph.output}
    taken = {value.name for value in decoder.graph.input} - {TARGET_IDS}
    states = {value.name.removesuffix(NEXT) for value in decoder.graph.output} - {LOGITS}
    if given != taken or not states <= taken:
        msg = (
            f"the encoder gives {sorted(given)}, but the decoder takes {sorted(taken)} and gives new {sorted(states)}:"
            " the decoder must take what the encoder gives, and give nothing new that it does not take"
        )
        raise ConversionError(msg)
    dims = {tensor.name: tensor.dims for tensor in signature(decoder)[1]}[LOGITS]
    if dims[-1] < 0 or dims[:-1] not in ((1,), (-1,)):
        msg = f"the decoder gives {LOGITS} {list(dims)} instead of one value for each word of its vocabulary"
        raise ConversionError(msg)
    return dims[-1]


class _Search:
    """The nodes around the decoder; those of the loop's body are put aside until it is closed."""

    def __init__(self, decoding: Decoding, vocabulary: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._how = decoding
        self._vocabulary = vocabulary
        self._inside = ""

    def constant(self, name: str, value: object, dtype: DTypeLike = np.int64) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def add(self, kind: str, *inputs: str, name: str, **attributes: Any) -> str:  # noqa: ANN401 - what ONNX takes
        name = self._inside + name
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def begin(self) -> None:
        """Shapes, and what the loop begins with."""
        beams, longest = self._how.beams, self._how.max_tokens
        self.constant("whole", [-1])
        batch = self.add("Shape", NETWORK_INPUT, name="batch_shape", start=0, end=1)
        count = self.add("Squeeze", batch, name="batch_count")
        rows = self.add("Range", self.constant("zero", 0), count, self.constant("one", 1), name="row_numbers")
        column = self.add("Unsqueeze", rows, self.constant("last", [-1]), name="row_column")
        grid = self.add("Tile", column, self.constant("once_a_beam", [1, beams]), name="row_grid")
        self.add("Reshape", grid, "whole", name="row_of_beam")
        # The rows' first beams, as rows of (batch * beams).
        self.add("Mul", column, self.constant("beams", beams), name="first_beam")
        each = self.add("Shape", "row_of_beam", name="beam_shape")
        single = self.constant("single", [1])
        shapes = {
            "written": (each, self.constant("longest", [longest])),
            "token": (each, single),
            "scores": (batch, self.constant("a_beam", [beams])),
            "ended": (batch, "a_beam"),
        }
        # All beams of a row begin alike: the first one stands for all of them.
        lead = self.constant("lead", [0.0] + [-np.inf] * (beams - 1), np.float32)
        values = {"token": self.constant("start", [[self._how.start]]), "scores": lead}
        for name, parts in shapes.items():
            shape = self.add("Concat", *parts, name=f"{name}_shape", axis=0)
            zeros = helper.make_tensor("nothing", _CARRIED[name], [1], [0])
            if name in values:
                self.add("Expand", values[name], shape, name=f"{name}_before")
            else:
                self.add("ConstantOfShape", shape, name=f"{name}_before", value=zeros)

    def loop(self, decoder: onnx.ModelProto, given: Mapping[str, str]) -> None:
        """The loop over tokens; what it carries is called ``NAME_after`` behind it."""
        outputs = [value.name.removeprefix(_DECODER) for value in decoder.graph.output]
        states = [name.removesuffix(NEXT) for name in outputs if name != LOGITS]
        kinds = {value.name.removeprefix(_DECODER): value.type for value in decoder.graph.input}
        before, self.nodes = self.nodes, []
        self._inside = "step/"
        renamed = {f"{_DECODER}{name}": f"step/{name}" if name in states else outer for name, outer in given.items()}
        wanted = kinds[TARGET_IDS].tensor_type.elem_type
        renamed[f"{_DECODER}{TARGET_IDS}"] = self.add("Cast", "step/token", name="target_ids", to=wanted)
        self.nodes += _renamed(decoder, renamed)
        parents = self._step()
        for name in states:
            self.add("Gather", f"{_DECODER}{name}{NEXT}", parents, name=f"{name}_after", axis=0)
        self._inside = ""
        carried = {**_CARRIED, **{name: kinds[name].tensor_type.elem_type for name in states}}
        ranks = {name: len(kinds[name].tensor_type.shape.dim) for name in states}
        body = helper.make_graph(
            self.nodes,
            "step",
            [
                helper.make_tensor_value_info("step/number", TensorProto.INT64, []),
                helper.make_tensor_value_info("step/go", TensorProto.BOOL, []),
                *(_free(f"step/{name}", kind, ranks.get(name, 2)) for name, kind in carried.items()),
            ],
            [
                helper.make_tensor_value_info("step/go_after", TensorProto.BOOL, []),
                *(_free(f"step/{name}_after", kind, ranks.get(name, 2)) for name, kind in carried.items()),
            ],
        )
        trips, go = self.constant("most_steps", self._how.max_tokens), self.constant("go", True, np.bool_)  # noqa: FBT003 - a tensor's value
        feeds = [*(f"{name}_before" for name in _CARRIED), *(given[name] for name in states)]
        results = [f"{name}_after" for name in carried]
        self.nodes = [*before, helper.make_node("Loop", [trips, go, *feeds], results, "loop", body=body)]

    def _step(self) -> str:
        """What follows the decoder in one step.

        Returns:
            Which of the beams before each beam goes on from, ``(batch * beams,)``.
        """
        add, constant = self.add, self.constant
        ids = np.arange(self._vocabulary)
        never = (ids == PADDING) | (ids == self._how.start) | (ids >= self._how.vocabulary)
        never_chosen = constant("never_chosen", np.where(never, -np.inf, 0), np.float32)
        only_padding = constant("only_padding", np.where(ids == PADDING, 0, -np.inf), np.float32)
        size, shape = constant("vocabulary", self._vocabulary), constant("each_beam", [-1, self._how.beams, 1])
        beams_of_rows = constant("beams_of_rows", [-1, self._how.beams, self._vocabulary])

        logits = add("Reshape", f"{_DECODER}{LOGITS}", beams_of_rows, name="logits")
        told = add("LogSoftmax", logits, name="log_probabilities", axis=-1)
        ended = add("Unsqueeze", "step/ended", "last", name="ended_beams")
        open_ = add("Add", told, never_chosen, name="of_open_beams")
        gained = add("Where", ended, only_padding, open_, name="gained")
        sums = add("Add", gained, add("Reshape", "step/scores", shape, name="score_of_beams"), name="sums")
        all_of_row = constant("all_of_row", [-1, self._how.beams * self._vocabulary])
        self.nodes.append(
            helper.make_node(
                "TopK",
                [add("Reshape", sums, all_of_row, name="candidates"), "a_beam"],
                ["step/scores_after", "step/places"],
                "step/best",
            )
        )
        beam = add("Div", "step/places", size, name="beam")
        chosen = add("Mod", "step/places", size, name="chosen")
        parent_grid = add("Add", beam, "first_beam", name="parent_grid")
        parents = add("Reshape", parent_grid, "whole", name="parents")
        token = add("Reshape", chosen, constant("column", [-1, 1]), name="token_after")

        had_ended = add("GatherElements", "step/ended", beam, name="had_ended", axis=1)
        ends = add("Equal", chosen, constant("end", self._how.end), name="ends")
        ended = add("Or", had_ended, ends, name="ended_after")
        before = add("Gather", "step/written", parents, name="written_before", axis=0)
        here = add("Equal", constant("positions", np.arange(self._how.max_tokens)), "step/number", name="here")
        word = add("Cast", token, name="word", to=TensorProto.INT32)
        written = add("Where", here, word, before, name="written_after")
        self._finish_rows(written, ended)
        return parents

    def _finish_rows(self, written: str, ended: str) -> None:
        """A row is done when its best finished text is not below what any open one can reach."""
        add = self.add
        nothing = self.constant("nothing", -np.inf, np.float32)
        reached, possible = self._ranks("step/scores_after", written)
        finished = add("Where", ended, reached, nothing, name="finished")
        unfinished = add("Where", ended, nothing, possible, name="unfinished")
        best = add("ReduceMax", finished, "last", name="best_finished")
        rival = add("ReduceMax", unfinished, "last", name="best_unfinished")
        done = add("GreaterOrEqual", best, rival, name="is_done")
        least = add(
            "ReduceMin", add("Cast", done, name="done_number", to=TensorProto.INT32), name="all_done", keepdims=0
        )
        add("Not", add("Cast", least, name="is_over", to=TensorProto.BOOL), name="go_after")

    def _ranks(self, scores: str, written: str) -> tuple[str, str]:
        """What finished texts are compared by, and the best that open ones can reach."""
        if not self._how.length_penalty:
            return scores, scores
        add = self.add
        power = self.constant("length_penalty", self._how.length_penalty, np.float32)
        is_word = add("Cast", written, name="is_word", to=TensorProto.BOOL)
        words = add("Cast", is_word, name="words", to=TensorProto.FLOAT)
        count = add("ReduceSum", words, "last", name="word_count", keepdims=0)
        length = add("Reshape", count, self.constant("beam_grid", [-1, self._how.beams]), name="length")
        longest = self.constant("longest_penalty", self._how.max_tokens**self._how.length_penalty, np.float32)
        return (
            add("Div", scores, add("Pow", length, power, name="penalty"), name="reached"),
            add("Div", scores, longest, name="possible"),
        )

    def choose(self) -> None:
        """The best beam of each row is the answer."""
        add = self.add
        reached, possible = self._ranks("scores_after", "written_after")
        rank = add("Where", "ended_after", reached, possible, name="rank")
        best = add("ArgMax", rank, name="best_beam", axis=1, keepdims=1)
        add("GatherElements", "scores_after", best, name=LOG_PROBABILITY, axis=1)
        ended = add("Cast", "ended_after", name="ended_number", to=TensorProto.INT32)
        complete = add("GatherElements", ended, best, name="complete", axis=1)
        add("Cast", complete, name=IS_COMPLETE, to=TensorProto.BOOL)
        row = add("Reshape", add("Add", best, "first_beam", name="best_row"), "whole", name="best_rows")
        text = add("Gather", "written_after", row, name="text", axis=0)
        is_end = add("Equal", text, self.constant("end_word", self._how.end, np.int32), name="is_end")
        add("Where", is_end, self.constant("padding", PADDING, np.int32), text, name=GENERATED_IDS)


def _free(name: str, kind: int, rank: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [None] * rank)


def _renamed(decoder: onnx.ModelProto, names: Mapping[str, str]) -> list[onnx.NodeProto]:
    """The decoder's nodes, reading what is there in the loop's body."""
    for node in all_nodes(decoder.graph.node):
        node.input[:] = [names.get(name, name) for name in node.input]
    return list(decoder.graph.node)
