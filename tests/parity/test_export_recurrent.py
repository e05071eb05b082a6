"""Recurrent layers: where they stand in a model, what has no native operator, what is refused."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.keras_models import keras, layers, vary

from radserve.errors import ConversionError
from radserve_export.from_keras import recurrent
from radserve_export.from_keras.convert import convert
from radserve_export.graphs.checked import Chain, all_nodes
from radserve_export.graphs.precision import quantise_dynamically, to_half
from radserve_export.network import Conversion, Form

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from radserve_export.network import Network

STEPS, FEATURES, UNITS, WORDS = 9, 5, 6, 20
ATOL = 1e-5
NATIVE = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}


def _sequences() -> NDArray[np.float32]:
    """All lengths 0..STEPS right-padded, then masks with holes, left-padding and a single step."""
    values = np.random.default_rng(0).normal(size=(STEPS + 7, STEPS, FEATURES)).astype(np.float32)
    keep = np.arange(STEPS)[None] < np.arange(STEPS + 1)[:, None]
    holes = np.random.default_rng(1).random((3, STEPS)) < 0.5
    left = np.arange(STEPS)[None] >= np.array([[4]])
    single = np.arange(STEPS)[None] == np.array([[7], [0]])
    values *= np.concatenate([keep, holes, left, single])[..., None]
    return values


def _converted(model: keras.Model) -> Network:
    return convert(model, Conversion(form=Form.NAMED), source_sha256="0" * 64)


def _operators(network: Network) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(network.graph.graph.node))


def _assert_equal(network: Network, model: keras.Model, *feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Compare with Keras called eagerly: nothing is shared with the tracing. Returns what ONNX Runtime answers."""
    graph = network.graph.graph
    got = Chain([network.graph])({value.name: feed for value, feed in zip(graph.input, feeds, strict=True)})
    want = keras.tree.flatten(model(feeds[0] if len(feeds) == 1 else list(feeds), training=False))
    for value, expected in zip(graph.output, want, strict=True):
        assert np.ptp(expected) > 0.01, "the outputs must differ for the comparison to mean something"
        np.testing.assert_allclose(got[value.name], expected, atol=ATOL, rtol=0)
    return got


def _masked(*following: Any) -> keras.Model:
    return vary(keras.Sequential([layers.Input((STEPS, FEATURES)), layers.Masking(), *following]), scale=1.5)


@pytest.mark.parametrize("operator", NATIVE)
def test_masked_steps_of_an_embedding_repeat_the_last_output(operator: str) -> None:
    ids = layers.Input((None,), dtype="int32")
    embedded = layers.Embedding(WORDS, FEATURES, mask_zero=True)(ids)
    model = vary(keras.Model(ids, NATIVE[operator](UNITS, return_sequences=True, name="out")(embedded)), scale=2)
    network = _converted(model)
    rows = np.array([[3, 0, 0, 7, 0], [0, 0, 0, 0, 0], [0, 4, 5, 6, 7], [1, 2, 3, 4, 5]], np.int32)
    got = _assert_equal(network, model, rows)["out"]
    np.testing.assert_array_equal(got[0, 0], got[0, 2])
    np.testing.assert_array_equal(got[0, 3], got[0, 4])
    assert not got[1].any()
    assert not got[2, 0].any()
    _assert_equal(network, model, np.concatenate([rows, np.zeros_like(rows)], 1))


def test_stacked_masked_layers_are_all_native() -> None:
    stack = [layers.GRU(UNITS, return_sequences=True), layers.LSTM(UNITS, return_sequences=True)]
    model = _masked(*stack, layers.SimpleRNN(UNITS))
    network = _converted(model)
    operators = _operators(network)
    assert (operators["GRU"], operators["LSTM"], operators["Loop"]) == (1, 1, 0)
    _assert_equal(network, model, _sequences())


@pytest.mark.parametrize(("steps", "operators"), [(1, 0), (2, 0), (256, 0), (257, 1), (None, 1)])
@pytest.mark.parametrize("is_masked", [False, True])
def test_a_simple_rnn_over_few_steps_becomes_a_node_for_each(
    steps: int | None, operators: int, *, is_masked: bool
) -> None:
    following = [layers.Masking()] if is_masked else []
    following += [layers.SimpleRNN(UNITS, return_sequences=True), layers.SimpleRNN(UNITS, go_backwards=True)]
    model = vary(keras.Sequential([layers.Input((steps, FEATURES)), *following]))
    network = _converted(model)
    found = _operators(network)
    assert (found["RNN"], found["Loop"]) == (2 * operators, 0)
    values = np.random.default_rng(0).normal(size=(3, steps or 7, FEATURES)).astype(np.float32)
    values[1, 1:] = 0
    _assert_equal(network, model, values)


@pytest.mark.parametrize(("lower", "atol"), [(to_half, 1e-2), (quantise_dynamically, 0.1)])
@pytest.mark.parametrize("operator", NATIVE)
def test_layers_can_be_brought_to_lower_precision(
    operator: str, lower: Callable[[onnx.ModelProto], onnx.ModelProto], atol: float
) -> None:
    model = _masked(NATIVE[operator](UNITS), layers.Dense(2))
    network = _converted(model)
    got = Chain([lower(network.graph)])({network.graph.graph.input[0].name: _sequences()})
    want = np.asarray(model(_sequences(), training=False))
    assert np.ptp(want) > 0.5
    np.testing.assert_allclose(got[network.graph.graph.output[0].name], want, atol=atol)


def test_what_onnx_runtime_does_not_compute_is_a_typed_error() -> None:
    model = keras.Sequential([layers.Input((STEPS, FEATURES)), layers.LSTM(UNITS, dtype="float64")])
    network = _converted(model)
    with pytest.raises(ConversionError, match=r"^the graph cannot be run: .*LSTM"):
        Chain([network.graph])({network.graph.graph.input[0].name: _sequences()})


@pytest.mark.parametrize("function", ["linear", "softsign", "softplus", "elu"])
@pytest.mark.parametrize("operator", NATIVE)
def test_further_activations_are_native(operator: str, function: str) -> None:
    options = {} if operator == "RNN" else {"recurrent_activation": "hard_sigmoid"}
    model = vary(
        keras.Sequential([layers.Input((STEPS, FEATURES)), NATIVE[operator](UNITS, activation=function, **options)]),
        scale=0.7,
    )
    network = _converted(model)
    assert not _operators(network)["Loop"]
    _assert_equal(network, model, _sequences())


@pytest.mark.parametrize("dtype", ["bool", "float32", "int32"])
def test_a_mask_may_be_an_input_and_what_it_hides_may_be_anything(dtype: str) -> None:
    sequence, mask = layers.Input((STEPS, FEATURES), name="sequence"), layers.Input((STEPS,), dtype=dtype, name="mask")
    model = vary(keras.Model([sequence, mask], layers.LSTM(UNITS, return_sequences=True)(sequence, mask=mask)), scale=2)
    valid = np.random.default_rng(0).random((7, STEPS)) < 0.6
    values = np.where(valid[..., None], _sequences()[5:12], np.nan)
    # Keras takes everything but 0 for a valid step.
    shown = valid if dtype == "bool" else valid.astype(dtype) * np.array(0.5 if dtype == "float32" else 3, dtype)
    _assert_equal(_converted(model), model, values, shown)


@pytest.mark.parametrize("operator", NATIVE)
def test_a_layer_called_twice_keeps_its_calls_apart(operator: str) -> None:
    once, again = layers.Input((STEPS, FEATURES), name="once"), layers.Input((STEPS, FEATURES), name="again")
    layer = NATIVE[operator](UNITS)
    model = vary(keras.Model([once, again], layers.Concatenate()([layer(layers.Masking()(once)), layer(again)])))
    network = _converted(model)
    assert not _operators(network)["Loop"]
    _assert_equal(network, model, _sequences(), np.flip(_sequences(), 0))


def _decoder(kind: Any, states: int) -> keras.Model:
    ids = layers.Input((None,), dtype="int32", name="tokens")
    given = [layers.Input((UNITS,), name=f"given_{number}") for number in range(states)]
    embedding = layers.Embedding(WORDS, FEATURES, mask_zero=True)
    layer = kind(UNITS, return_sequences=True, return_state=True)
    sequence, *last = layer(embedding(ids), initial_state=given, mask=embedding.compute_mask(ids))
    named = [layers.Identity(name=f"state_{number}")(state) for number, state in enumerate(last)]
    return keras.Model([ids, *given], [layers.Dense(4, name="scores")(sequence), *named], name="decoder")


@pytest.mark.parametrize(("operator", "states"), [("LSTM", 2), ("GRU", 1), ("RNN", 1)])
def test_an_encoder_and_a_decoder_are_native_together_and_the_decoder_alone(operator: str, states: int) -> None:
    kind, decoder = NATIVE[operator], _decoder(NATIVE[operator], states)
    source, target = layers.Input((None,), dtype="int32", name="source"), layers.Input((None,), dtype="int32")
    _, *last = kind(UNITS, return_state=True)(layers.Embedding(WORDS, FEATURES, mask_zero=True)(source))
    model = vary(keras.Model([source, target], [layers.Identity()(one) for one in decoder([target, *last])]), scale=2)
    network = _converted(model)
    operators = _operators(network)
    assert (operators[operator], operators["Loop"], operators["Scan"]) == (2, 0, 0)
    read = np.array([[1, 2, 3, 4], [0, 0, 0, 0], [4, 0, 5, 0]], np.int32)
    written = np.array([[1, 2, 0], [0, 3, 0], [0, 0, 0]], np.int32)
    _assert_equal(network, model, read, written)
    alone = _converted(decoder)
    assert _operators(alone)[operator] == 1
    given = [np.random.default_rng(number).normal(size=(3, UNITS)).astype(np.float32) for number in range(states)]
    _assert_equal(alone, decoder, written, *given)
    _assert_equal(alone, decoder, written[:, :1], *given)


@keras.saving.register_keras_serializable("tests")
class Wrapped(layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """A recurrent layer inside a layer of the user's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = layers.GRU(UNITS, name="hidden_gru")

    def call(self, x: Any) -> Any:
        return self.inner(x)

    def compute_mask(self, _: Any, previous_mask: Any) -> None:
        """The mask ends here."""


class Subclassed(keras.Model):  # type: ignore[misc]  # as above
    def __init__(self) -> None:
        super().__init__()
        self.steps = [layers.Masking(), layers.LSTM(UNITS, return_sequences=True), Wrapped(name="wrapped")]

    def call(self, x: Any, training: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002 - as Keras calls it
        for layer in self.steps:
            x = layer(x)
        return x


def test_layers_inside_subclassed_models_and_layers_are_native() -> None:
    custom = Subclassed()
    custom(_sequences())
    model = vary(keras.Sequential([layers.Input((STEPS, FEATURES)), custom, layers.Dense(2)]), scale=2)
    network = _converted(model)
    operators = _operators(network)
    assert (operators["LSTM"], operators["GRU"], operators["Loop"]) == (1, 1, 0)
    _assert_equal(network, model, _sequences())


class Peculiar(layers.Layer):  # type: ignore[misc]  # as above
    """Calls a layer as only code of one's own can."""

    def __init__(self, inner: Any, **options: Any) -> None:
        super().__init__(name="peculiar")
        self.inner, self.options = inner, options

    def call(self, x: Any) -> Any:
        output, *states = self.inner(x, **self.options)
        (h, *_) = states[0] if isinstance(states[0], list) else states
        return output + 2 * h


@pytest.mark.parametrize(
    "inner",
    [
        lambda: layers.LSTM(UNITS, return_state=True, dropout=0.5, recurrent_dropout=0.5),
        lambda: layers.RNN([layers.LSTMCell(UNITS)], return_state=True),
        lambda: layers.RNN([layers.GRUCell(UNITS), layers.LSTMCell(UNITS)], return_state=True),
    ],
)
def test_states_come_in_the_form_that_keras_gives_them(inner: Callable[[], Any]) -> None:
    model = vary(keras.Sequential([layers.Input((STEPS, FEATURES)), Peculiar(inner())]), scale=2)
    network = _converted(model)
    assert not {"Loop", "Scan"} & set(_operators(network))
    _assert_equal(network, model, _sequences())


def test_a_layer_that_drops_values_at_random_is_refused_by_name() -> None:
    layer = layers.GRU(UNITS, return_state=True, dropout=0.5, name="it")
    model = keras.Sequential([layers.Input((STEPS, FEATURES)), Peculiar(layer, training=True)])
    with pytest.raises(
        ConversionError, match=r"^layer peculiar/it cannot be exported: .* at random: call it with training=False$"
    ):
        _converted(model)


class Doubled(layers.LSTM):  # type: ignore[misc]  # as above
    """A subclass may compute anything."""

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:  # noqa: FBT001, FBT002 - Keras' signature
        return 2 * super().call(sequences, initial_state=initial_state, mask=mask, training=training)


class HalfCell(layers.GRUCell):  # type: ignore[misc]  # as above
    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:  # noqa: FBT001, FBT002 - Keras' signature
        output, states = super().call(inputs, states, training=training)
        return output / 2, states


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: layers.LSTM(UNITS, activation="gelu", name="it"), "its activation gelu"),
        (
            lambda: layers.GRU(UNITS, recurrent_activation="silu", name="it", return_sequences=True),
            "its activation silu",
        ),
        (lambda: layers.SimpleRNN(UNITS, activation=layers.LeakyReLU(), name="it"), "its activation LeakyReLU"),
        (lambda: Doubled(UNITS, name="it"), "Doubled is not LSTM, GRU, SimpleRNN or RNN"),
        (lambda: layers.RNN(HalfCell(UNITS), name="it"), "its cell is a HalfCell"),
        (lambda: layers.RNN([layers.GRUCell(UNITS), HalfCell(UNITS)], name="it"), "its cell is a HalfCell"),
        (lambda: layers.LSTM(UNITS, dtype="float64", name="it"), "it computes in float64"),
    ],
)
def test_what_is_not_native_is_said_and_equal_to_keras(
    layer: Callable[[], Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = vary(keras.Sequential([layers.Input((STEPS, FEATURES)), layers.Masking(), layer()]), scale=0.6)
    with caplog.at_level(logging.WARNING, "radserve_export"):
        network = _converted(model)
    (note,) = [record.getMessage() for record in caplog.records if record.name == "radserve_export"]
    assert f"layer it has no native ONNX operator ({reason})" in note
    assert not {"LSTM", "GRU", "RNN"} & set(_operators(network))
    _assert_equal(network, model, _sequences())


def test_nothing_is_said_of_native_layers(caplog: pytest.LogCaptureFixture) -> None:
    _converted(_masked(layers.Bidirectional(layers.GRU(UNITS)), layers.Dense(2)))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("layer", "path"),
    [
        (lambda: layers.LSTM(UNITS, stateful=True, name="remembering"), "inner/remembering"),
        (
            lambda: layers.Bidirectional(layers.GRU(UNITS, stateful=True, name="it"), name="both"),
            "inner/both/forward_it",
        ),
        (lambda: layers.RNN(layers.SimpleRNNCell(UNITS), stateful=True, name="cells"), "inner/cells"),
    ],
)
def test_a_stateful_layer_is_refused_by_name(layer: Callable[[], Any], path: str) -> None:
    inner = keras.Sequential([layers.Input((STEPS, FEATURES), batch_size=2), layer()], name="inner")
    outer = layers.Input((STEPS, FEATURES), batch_size=2)
    model = keras.Model(outer, layers.Dense(2)(inner(outer)))
    with pytest.raises(ConversionError, match=rf"^layer {path} cannot be exported: it is stateful.*stateful=False"):
        _converted(model)


def test_layers_are_as_before_after_a_conversion_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([layers.Input((STEPS, FEATURES)), layers.LSTM(UNITS)])

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(recurrent, "partial", fail)
    with pytest.raises(RuntimeError), recurrent.native_recurrent(model):
        pass
    assert "call" not in vars(model.layers[0])
