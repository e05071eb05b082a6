"""Recurrent layers as native ONNX operators: equal to Keras, for any mask."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.keras_models import keras, layers, vary

from radserve_export.from_keras import recurrent
from radserve_export.from_keras.convert import convert
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain, all_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from radserve_export.network import Network

STEPS, FEATURES, UNITS = 9, 5, 6
ATOL = 1e-5

KINDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "LSTM": (layers.LSTM, {}, "LSTM"),
    "LSTM relu": (layers.LSTM, {"activation": "relu"}, "LSTM"),
    "LSTM hard_sigmoid": (layers.LSTM, {"recurrent_activation": "hard_sigmoid"}, "LSTM"),
    "LSTM without bias": (layers.LSTM, {"use_bias": False}, "LSTM"),
    "GRU": (layers.GRU, {}, "GRU"),
    "GRU reset before": (layers.GRU, {"reset_after": False}, "GRU"),
    "GRU without bias": (layers.GRU, {"use_bias": False, "activation": "relu"}, "GRU"),
    "SimpleRNN": (layers.SimpleRNN, {}, "RNN"),
    "SimpleRNN relu": (layers.SimpleRNN, {"activation": "relu"}, "RNN"),
}


def _sequences() -> NDArray[np.float32]:
    """All lengths 0..T right-padded, then masks with holes, left-padding and a single step."""
    values = np.random.default_rng(0).normal(size=(STEPS + 7, STEPS, FEATURES)).astype(np.float32)
    keep = np.arange(STEPS)[None] < np.arange(STEPS + 1)[:, None]
    holes = np.random.default_rng(1).random((3, STEPS)) < 0.5
    left = np.arange(STEPS)[None] >= np.array([[4]])
    single = np.arange(STEPS)[None] == np.array([[7], [0]])
    values *= np.concatenate([keep, holes, left, single])[..., None]
    return values


def _converted(model: keras.Model) -> Network:
    return convert(model, source_sha256="0" * 64)


def _operators(network: Network) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(network.graph.graph.node))


def _both(network: Network, model: keras.Model, feed: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What ONNX Runtime answers, and what Keras does, called eagerly: nothing is shared with the tracing."""
    got = Chain([network.graph])({NETWORK_INPUT: feed})[NETWORK_OUTPUT]
    return got, np.asarray(model(feed, training=False))


@pytest.mark.parametrize("returns", ["last", "sequence"])
@pytest.mark.parametrize("masked", ["plain", "masked"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_layer_is_native_and_equal_to_keras(kind: str, masked: str, returns: str) -> None:
    layer, options, operator = KINDS[kind]
    stack = [layers.Masking()] if masked == "masked" else []
    model = vary(
        keras.Sequential(
            [layers.Input((STEPS, FEATURES)), *stack, layer(UNITS, return_sequences=returns == "sequence", **options)]
        ),
        scale=1.5,
    )
    network = _converted(model)
    operators = _operators(network)
    assert operators[operator] == 1
    assert not {"Loop", "Scan"} & set(operators)
    got, want = _both(network, model, _sequences())
    assert np.ptp(want) > 0.1, "the outputs must differ for the comparison to mean something"
    np.testing.assert_allclose(got, want, atol=ATOL, rtol=0)


@pytest.mark.parametrize("kind", ["LSTM relu", "GRU"])
def test_masked_steps_of_an_embedding_repeat_the_last_output(kind: str) -> None:
    layer, options, _ = KINDS[kind]
    model = vary(
        keras.Sequential(
            [
                layers.Input((None,), dtype="int32"),
                layers.Embedding(20, FEATURES, mask_zero=True),
                layer(UNITS, return_sequences=True, **options),
            ]
        ),
        scale=2,
    )
    network = _converted(model)
    ids = np.array([[3, 0, 0, 7, 0], [0, 0, 0, 0, 0], [0, 4, 5, 6, 7], [1, 2, 3, 4, 5]], np.int32)
    got, want = _both(network, model, ids)
    np.testing.assert_allclose(got, want, atol=ATOL, rtol=0)
    np.testing.assert_array_equal(got[0, 0], got[0, 2])
    np.testing.assert_array_equal(got[0, 3], got[0, 4])
    assert not got[1].any()
    assert not got[2, 0].any()
    longer = np.concatenate([ids, np.zeros_like(ids)], 1)
    np.testing.assert_allclose(*_both(network, model, longer), atol=ATOL, rtol=0)


@pytest.mark.parametrize("returns", ["last", "sequence"])
@pytest.mark.parametrize("masked", ["plain", "masked"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_both_directions_are_native(kind: str, masked: str, returns: str) -> None:
    layer, options, operator = KINDS[kind]
    inner = layer(UNITS, return_sequences=returns == "sequence", **options)
    stack = [layers.Masking()] if masked == "masked" else []
    model = vary(keras.Sequential([layers.Input((STEPS, FEATURES)), *stack, layers.Bidirectional(inner)]), scale=1.5)
    network = _converted(model)
    operators = _operators(network)
    assert (operators[operator], operators["Loop"]) == (2, 0)
    np.testing.assert_allclose(*_both(network, model, _sequences()), atol=ATOL, rtol=0)


def test_stacked_masked_layers_are_all_native() -> None:
    model = vary(
        keras.Sequential(
            [
                layers.Input((STEPS, FEATURES)),
                layers.Masking(),
                layers.GRU(UNITS, return_sequences=True),
                layers.LSTM(UNITS, return_sequences=True),
                layers.SimpleRNN(UNITS),
            ]
        ),
        scale=1.5,
    )
    network = _converted(model)
    operators = _operators(network)
    assert (operators["GRU"], operators["LSTM"], operators["RNN"], operators["Loop"]) == (1, 1, 1, 0)
    np.testing.assert_allclose(*_both(network, model, _sequences()), atol=ATOL, rtol=0)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LSTM(UNITS, activation="gelu"),
        lambda: layers.GRU(UNITS, activation="elu", return_sequences=True),
        lambda: layers.RNN(layers.LSTMCell(UNITS)),
    ],
)
def test_what_is_not_native_is_still_equal_to_keras(layer: Callable[[], Any]) -> None:
    model = vary(keras.Sequential([layers.Input((STEPS, FEATURES)), layers.Masking(), layer()]), scale=1.5)
    np.testing.assert_allclose(*_both(_converted(model), model, _sequences()), atol=ATOL, rtol=0)


def test_layers_are_as_before_after_a_conversion_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([layers.Input((STEPS, FEATURES)), layers.LSTM(UNITS)])

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(recurrent, "partial", fail)
    with pytest.raises(RuntimeError), recurrent.native_recurrent(model):
        pass
    assert "call" not in vars(model.layers[0])
