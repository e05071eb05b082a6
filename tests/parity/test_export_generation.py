"""Text generators of several kinds: the one graph that is served writes what Keras writes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.text_generators import MAX_TOKENS, generation_spec, generator, keras, layers, tokenizer

from radserve.contracts import IS_COMPLETE, LOG_PROBABILITY
from radserve.errors import ConversionError, ParityError
from radserve_export.ensemble import build_steps
from radserve_export.from_keras.convert import convert
from radserve_export.graphs import GENERATED_IDS, NETWORK_INPUT
from radserve_export.graphs.checked import Chain, all_nodes
from radserve_export.graphs.decoding import MARGIN
from radserve_export.network import Conversion, Decoding, Form
from radserve_export.parity import check_parity
from radserve_export.reference import Reference, check_fit, conversion_of, parity_stages
from radserve_export.spec import load_spec
from radserve_export.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export.network import Network

VOCABULARY = 30


def conversion(beams: int = 1, length_penalty: float = 0.0) -> Conversion:
    how = Decoding(start=1, end=2, vocabulary=VOCABULARY, max_tokens=9, beams=beams, length_penalty=length_penalty)
    return Conversion(form=Form.GENERATION, decoding=how)


def sources(rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Right-padded to lengths from 0 on."""
    rng = np.random.default_rng(rows)
    ids = rng.integers(3, VOCABULARY, (rows, MAX_TOKENS))
    return np.asarray(ids * (np.arange(MAX_TOKENS) < np.arange(rows)[:, None] % (MAX_TOKENS + 1))).astype(dtype)


def written(network: Network, rows: int) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """What the graph writes, and what Keras does."""
    dtype = np.dtype(np.float32 if "plain" in network.tools["kind"] else np.int32)
    feeds = {NETWORK_INPUT: sources(rows, dtype)}
    return Chain([network.graph])(feeds), network.reference(feeds)


def converted(kind: str, how: Conversion, **options: Any) -> Network:
    network = convert(generator(kind, VOCABULARY, **options), how, source_sha256="0")
    network.tools["kind"] = kind
    return network


@pytest.mark.parametrize(("kind", "end_bias"), [("lstm", 1.0), ("gru", 1.0), ("plain", -2.0)])
def test_greedy_and_beam_search_write_what_keras_writes(kind: str, end_bias: float) -> None:
    for beams, penalty in ((1, 0.0), (3, 0.7)):
        network = converted(kind, conversion(beams, penalty), end_bias=end_bias)
        for rows in (1, 14):
            got, want = written(network, rows)
            clear = want[MARGIN][:, 0] > 1e-4
            assert clear.mean() > 0.7
            for name in (GENERATED_IDS, IS_COMPLETE):
                np.testing.assert_array_equal(got[name][clear], want[name][clear])
            np.testing.assert_allclose(got[LOG_PROBABILITY][clear], want[LOG_PROBABILITY][clear], atol=1e-4)
        assert len({tuple(row) for row in want[GENERATED_IDS].tolist()}) >= 3
        loops = [node.op_type for node in all_nodes(network.graph.graph.node) if node.op_type in ("Loop", "Scan")]
        assert loops == ["Loop"]


def tossing(bias: float) -> keras.Model:
    """A generator that holds all words equally probable, but for one."""
    words = tokenizer()
    model = generator(vocabulary=words.get_vocab_size())
    layer = model.get_layer("decoder").get_layer("words")
    layer.kernel.assign(np.zeros(layer.kernel.shape))
    layer.bias.assign(np.eye(words.get_vocab_size())[5] * bias)
    return model


@pytest.mark.parametrize(("other_bias", "passes"), [(0.0, True), (5.0, False)])
def test_where_keras_tosses_a_coin_the_gate_still_judges_the_text_that_was_written(
    tmp_path: Path, other_bias: float, *, passes: bool
) -> None:
    path = generation_spec(tmp_path, model=tossing(0.0))
    spec, words = load_spec(path), read_tokenizer(tmp_path / "tokenizer.json")
    network, other = (
        convert(tossing(bias), conversion_of(spec, words), source_sha256="0") for bias in (0.0, other_bias)
    )
    wrong = replace(network, graph=other.graph)
    steps = build_steps(spec, wrong, check_fit(spec, wrong, words), words)
    stages = parity_stages(spec, wrong, steps, Reference(spec, wrong, words), words)
    with nullcontext() if passes else pytest.raises(ParityError, match="OWN_LOG_PROBABILITY differs"):
        check_parity(stages, spec=spec)


def test_one_step_of_the_decoder_is_one_of_keras() -> None:
    """The state that a step gives, fed to the next one, is that of the whole text at once."""
    model = generator("lstm", VOCABULARY)
    network = convert(model, conversion(), source_sha256="0")
    source, target = sources(5, np.dtype(np.int32))[1:], np.array([[1, 4, 9, 22]] * 4, np.int32)
    whole = np.asarray(model([source, target]))
    feeds = Chain([network.parts["encoder"].graph])({NETWORK_INPUT: source})
    decoder = Chain([network.parts["decoder"].graph])
    for place in range(4):
        answers = decoder({"target_ids": target[:, place : place + 1], **feeds})
        np.testing.assert_allclose(answers["logits"][:, 0], whole[:, place], atol=1e-5)
        feeds |= {"state_h": answers["state_h_next"], "state_c": answers["state_c_next"]}


def test_padding_does_not_change_the_text() -> None:
    network = converted("lstm", conversion())
    ids = sources(6, np.dtype(np.int32))[1:]
    longer = np.pad(ids, [(0, 0), (0, 7)])
    chain = Chain([network.graph])
    np.testing.assert_array_equal(
        chain({NETWORK_INPUT: ids})[GENERATED_IDS], chain({NETWORK_INPUT: longer})[GENERATED_IDS]
    )


def test_a_saved_model_is_converted_to_the_same_graph(tmp_path: Path) -> None:
    model = generator("gru", VOCABULARY)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    graphs = [convert(one, conversion(), source_sha256="0").graph for one in (model, again)]
    feeds = {NETWORK_INPUT: sources(8, np.dtype(np.int32))}
    one, other = (Chain([graph])(feeds)[GENERATED_IDS] for graph in graphs)
    np.testing.assert_array_equal(one, other)


def _no_encoder() -> keras.Model:
    taken = layers.Input((4,))
    return keras.Model(taken, layers.Dense(2)(taken), name="classifier")


def _list_of_outputs() -> keras.Model:
    inner = layers.Input((None,), dtype="int32")
    encoder = keras.Model(inner, [layers.LSTM(2)(layers.Embedding(5, 2)(inner))], name="encoder")
    decoder = keras.Model(inner, {"logits": layers.Embedding(5, 5)(inner)}, name="decoder")
    source, target = (layers.Input((None,), dtype="int32") for _ in range(2))
    return keras.Model([source, target], [*encoder(source), decoder(target)["logits"]], name="lists")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_no_encoder, "classifier has no layer encoder that is a functional model"),
        (_list_of_outputs, "model encoder: give its outputs as a dict"),
    ],
)
def test_a_model_that_is_no_generator_is_refused(model: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        convert(model(), conversion(), source_sha256="0")
