"""The graph that writes texts, against plain searches of the same tiny decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from support.generators import END, START, Tiny, beam_search, best_of_all

from radserve.contracts import IS_COMPLETE, LOG_PROBABILITY
from radserve.errors import ConversionError
from radserve_export.graphs import GENERATED_IDS, NETWORK_INPUT
from radserve_export.graphs.checked import Chain, all_nodes
from radserve_export.graphs.decoding import MARGIN, OWN_LOG_PROBABILITY, REGRET, decode, own_judgement
from radserve_export.graphs.generation import generation_graph
from radserve_export.graphs.merge import merge
from radserve_export.network import Decoding

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOCABULARY = 7
SEARCHES = [(1, 0.0), (2, 0.0), (3, 0.0), (4, 1.0), (8, 0.6), (16, 0.0)]


def search(beams: int = 1, length_penalty: float = 0.0, *, longest: int = 6, vocabulary: int = VOCABULARY) -> Decoding:
    return Decoding(
        start=START, end=END, vocabulary=vocabulary, max_tokens=longest, beams=beams, length_penalty=length_penalty
    )


def sources(rows: int, seed: int = 0) -> NDArray[np.int32]:
    """Right-padded ids; the first row is padding alone."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, rows)
    lengths[0] = 0
    ids = rng.integers(1, 20, (rows, 5)) * (np.arange(5) < lengths[:, None])
    return ids.astype(np.int32)


def run(graph: onnx.ModelProto, ids: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    return Chain([graph])({NETWORK_INPUT: ids})


def texts(answers: dict[str, NDArray[Any]]) -> list[tuple[int, ...]]:
    """Words of each row, the end token put back."""
    return [
        (*(int(word) for word in row if word), *([END] if complete else []))
        for row, complete in zip(answers[GENERATED_IDS], answers[IS_COMPLETE][:, 0], strict=True)
    ]


@pytest.mark.parametrize(("beams", "penalty"), SEARCHES)
@pytest.mark.parametrize("seed", range(4))
def test_the_graph_writes_what_a_plain_search_of_each_row_writes(seed: int, beams: int, penalty: float) -> None:
    tiny, how, ids = Tiny.random(seed, end_bias=0.4), search(beams, penalty), sources(9, seed)
    answers = run(tiny.graph(how), ids)
    wanted = [beam_search(tiny, row, how) for row in ids]
    assert texts(answers) == [words for words, _ in wanted]
    np.testing.assert_allclose(answers[LOG_PROBABILITY][:, 0], [score for _, score in wanted], atol=1e-5)


@pytest.mark.parametrize(("beams", "penalty"), SEARCHES)
@pytest.mark.parametrize("seed", range(4))
def test_the_search_in_numpy_writes_the_same(seed: int, beams: int, penalty: float) -> None:
    tiny, how, ids = Tiny.random(seed, end_bias=0.4), search(beams, penalty), sources(9, seed)
    got: dict[str, Any] = run(tiny.graph(how), ids)
    want: dict[str, Any] = decode(tiny.step, tiny.encode(ids), how)
    assert want[MARGIN].min() > 1e-5
    for name in (GENERATED_IDS, IS_COMPLETE):
        np.testing.assert_array_equal(got[name], want[name])
        assert got[name].dtype == want[name].dtype
    np.testing.assert_allclose(got[LOG_PROBABILITY], want[LOG_PROBABILITY], atol=1e-5)


@pytest.mark.parametrize(("beams", "penalty"), SEARCHES)
def test_a_text_read_again_is_as_probable_as_when_it_was_written(beams: int, penalty: float) -> None:
    tiny, how, ids = Tiny.random(1, end_bias=0.4), search(beams, penalty), sources(9, 1)
    written: dict[str, Any] = decode(tiny.step, tiny.encode(ids), how)
    assert 0 < written[IS_COMPLETE].sum() < len(ids)
    judged = own_judgement(tiny.step, tiny.encode(ids), written, how)
    np.testing.assert_allclose(judged[OWN_LOG_PROBABILITY], written[LOG_PROBABILITY], atol=1e-6)
    np.testing.assert_array_equal(judged[REGRET], 0)


def test_a_word_that_is_not_the_best_is_regretted() -> None:
    tiny, how, ids = Tiny.random(1, end_bias=0.4), search(), sources(9, 1)
    written: dict[str, Any] = decode(tiny.step, tiny.encode(ids), how)
    changed = written[GENERATED_IDS].copy()
    changed[:, 0] = np.where(changed[:, 0] == 3, 4, 3)
    judged = own_judgement(tiny.step, tiny.encode(ids), {**written, GENERATED_IDS: changed}, how)
    assert (judged[REGRET] > 1e-3).all()


def test_an_end_that_was_not_the_best_is_regretted() -> None:
    tiny, how, ids = Tiny.random(1, end_bias=0.4), search(), sources(9, 1)
    written: dict[str, Any] = decode(tiny.step, tiny.encode(ids), how)
    cut = written[GENERATED_IDS] * (np.arange(how.max_tokens) < 1)
    judged = own_judgement(tiny.step, tiny.encode(ids), {GENERATED_IDS: cut, IS_COMPLETE: np.ones((9, 1), bool)}, how)
    longer = written[GENERATED_IDS][:, 1] != 0
    assert longer.any()
    assert (judged[REGRET][longer] > 1e-3).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_as_many_beams_as_there_are_texts_find_the_best_text_of_all(seed: int, penalty: float) -> None:
    tiny, how, ids = Tiny.random(seed, vocabulary=5), search(15, penalty, longest=3, vocabulary=5), sources(4, seed)
    answers = run(tiny.graph(how), ids)
    wanted = [best_of_all(tiny, row, how) for row in ids]
    assert texts(answers) == [words for words, _ in wanted]
    np.testing.assert_allclose(answers[LOG_PROBABILITY][:, 0], [score for _, score in wanted], atol=1e-5)


def test_more_beams_find_more_probable_texts_than_greedy_search() -> None:
    tiny, ids = Tiny.random(1), sources(30)
    greedy, wide = (run(tiny.graph(search(beams)), ids) for beams in (1, 8))
    assert (wide[LOG_PROBABILITY] >= greedy[LOG_PROBABILITY] - 1e-5).mean() > 0.95
    assert (wide[LOG_PROBABILITY] > greedy[LOG_PROBABILITY] + 1e-3).any()


def test_a_length_penalty_prefers_longer_texts() -> None:
    tiny, ids = Tiny.random(2, end_bias=0.3), sources(40)
    plain, penalised = (run(tiny.graph(search(6, penalty)), ids)[GENERATED_IDS] for penalty in (0.0, 2.0))
    assert (penalised > 0).sum() > (plain > 0).sum()


@pytest.mark.parametrize(("beams", "penalty"), SEARCHES)
def test_a_row_is_answered_the_same_in_any_company(beams: int, penalty: float) -> None:
    graph, ids = Tiny.random(5, end_bias=0.4).graph(search(beams, penalty, longest=12)), sources(12, 3)
    together = run(graph, ids)
    alone = [run(graph, row[None]) for row in ids]
    for name in (GENERATED_IDS, IS_COMPLETE):
        np.testing.assert_array_equal(together[name], np.concatenate([one[name] for one in alone]))


def steps_taken(graph: onnx.ModelProto, ids: NDArray[np.int32]) -> int:
    """Rounds of the loop: a copy of it also collects one number a round."""
    graph = onnx.ModelProto.FromString(graph.SerializeToString())
    (loop,) = (node for node in graph.graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    body.node.append(onnx.helper.make_node("Identity", ["step/number"], ["round"]))
    body.output.append(onnx.helper.make_tensor_value_info("round", onnx.TensorProto.INT64, []))
    loop.output.append("ROUNDS")
    graph.graph.output.append(onnx.helper.make_tensor_value_info("ROUNDS", onnx.TensorProto.INT64, [None]))
    return len(run(graph, ids)["ROUNDS"])


@pytest.mark.parametrize("beams", [1, 3])
def test_the_loop_ends_with_the_longest_text_of_the_batch(beams: int) -> None:
    graph, ids = Tiny.random(6, end_bias=2).graph(search(beams, longest=50)), sources(8, 1)
    words = texts(run(graph, ids))
    assert all(text[-1] == END for text in words)
    rounds = steps_taken(graph, ids)
    assert rounds < 50
    assert rounds == max(len(text) for text in words) if beams == 1 else rounds >= max(map(len, words))


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_that_reaches_the_longest_length_is_not_complete(beams: int) -> None:
    graph, ids = Tiny.random(3, end_bias=-3).graph(search(beams, longest=4)), sources(3)
    answers = run(graph, ids)
    assert not answers[IS_COMPLETE].any()
    assert (answers[GENERATED_IDS] > 0).all()
    assert steps_taken(graph, ids) == 4


def test_padding_start_and_unknown_ids_are_never_written() -> None:
    tiny = Tiny.random(0, end_bias=-2)
    tiny.output[:, [0, START, 6]] *= 4
    answers = run(tiny.graph(search(2, vocabulary=6)), sources(50))
    words = {word for text in texts(answers) for word in text}
    assert words <= {END, 3, 4, 5}
    assert len(words) > 2


def test_source_that_is_padding_alone_is_answered() -> None:
    answers = run(Tiny.random(0).graph(search(3)), np.zeros((2, 5), np.int32))
    assert np.isfinite(answers[LOG_PROBABILITY]).all()


@pytest.mark.parametrize("beams", [1, 4])
def test_there_is_one_loop_and_none_inside_it(beams: int) -> None:
    graph = Tiny.random(0).graph(search(beams))
    assert [node.op_type for node in all_nodes(graph.graph.node) if node.op_type in ("Loop", "Scan", "If")] == ["Loop"]


def test_parts_that_do_not_fit_are_refused_by_name() -> None:
    tiny = Tiny.random(0)
    encoder = tiny.encoder()
    for node in encoder.graph.node:
        node.output[:] = ["context" if name == "memory" else name for name in node.output]
        node.input[:] = ["context" if name == "memory" else name for name in node.input]
    encoder.graph.output[0].name = "context"
    with pytest.raises(ConversionError, match=r"gives \['context', 'state'\], but the decoder takes \['memory'"):
        generation_graph(encoder, tiny.decoder(), search())


def test_the_graph_can_be_joined_with_others() -> None:
    graph, ids = Tiny.random(4).graph(search(2)), sources(6)
    joined = merge({"network": graph}, "pipeline")
    np.testing.assert_array_equal(run(joined, ids)[GENERATED_IDS], run(graph, ids)[GENERATED_IDS])


@pytest.mark.parametrize(("start", "end"), [(1, 1), (0, 2), (1, 0)])
def test_start_end_and_padding_must_differ(start: int, end: int) -> None:
    with pytest.raises(ConversionError, match="three different tokens"):
        Tiny.random(0).graph(replace(search(), start=start, end=end))
