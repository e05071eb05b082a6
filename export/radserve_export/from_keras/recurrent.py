"""LSTM, GRU and SimpleRNN as the ONNX operators of the same kind.

tf2onnx turns a masked LSTM and every GRU into an ONNX ``Loop``, several times
slower. While a model is traced, the ``call`` of such a layer is replaced by a
stand-in, which a handler then turns into the native operator with the layer's
weights. ONNX knows sequence lengths, not masks. So the valid steps are gathered
to the front, in their order: exact for any mask, not only for right-padding.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from radserve_export.from_keras._tensorflow import keras, tf, tf2onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_ACTIVATIONS = {
    keras.activations.sigmoid: ("Sigmoid", None, None),
    keras.activations.tanh: ("Tanh", None, None),
    keras.activations.relu: ("Relu", None, None),
    keras.activations.softsign: ("Softsign", None, None),
    keras.activations.hard_sigmoid: ("HardSigmoid", 1 / 6, 0.5),
}
_STAND_IN = "native_recurrent_"
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}

Handlers = dict[str, tuple["Callable[..., None]", list[str]]]


class Weights(NamedTuple):
    """ONNX' W ``(1, gates * units, features)``, R ``(1, gates * units, units)``, B ``(1, 2 * gates * units)``."""

    kernel: NDArray[np.float32]
    recurrent: NDArray[np.float32]
    bias: NDArray[np.float32] | None


@contextmanager
def native_recurrent(model: keras.Model) -> Iterator[Handlers]:
    """Replace the recurrent layers' ``call`` for the time of a tracing.

    Layers that are not covered (``return_state``, an initial state, other
    activations, ``stateful``) stay as they are, and the converter treats them in
    its own, slower way.

    Args:
        model: The model that will be traced.

    Yields:
        ``custom_op_handlers`` for tf2onnx.
    """
    layers = [layer for layer in model._flatten_layers() if _is_covered(layer)]  # noqa: SLF001 - Keras has no public walk that enters Bidirectional and nested models
    try:
        for number, layer in enumerate(layers):
            layer.call = _stand_in(layer, f"{_STAND_IN}{number}")
        # Weights are read here: variables have no value inside the converter's graph.
        yield {"PyFunc": (partial(_emit, [(layer, _weights(layer)) for layer in layers]), [])}
    finally:
        for layer in layers:
            if "call" in vars(layer):
                del layer.call


def _is_covered(layer: keras.layers.Layer) -> bool:
    if type(layer) not in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN):
        return False
    plain = not (layer.return_state or layer.stateful or (layer.zero_output_for_mask and not layer.return_sequences))
    return plain and layer.compute_dtype == "float32" and all(a in _ACTIVATIONS for a in _activations(layer))


def _activations(layer: keras.layers.Layer) -> list[Callable[..., Any]]:
    """In ONNX' order: of the gates, of the candidate, of the output."""
    if isinstance(layer, keras.layers.LSTM):
        return [layer.recurrent_activation, layer.activation, layer.activation]
    if isinstance(layer, keras.layers.GRU):
        return [layer.recurrent_activation, layer.activation]
    return [layer.activation]


def _stand_in(layer: keras.layers.Layer, name: str) -> Callable[..., tf.Tensor]:
    original = layer.call

    def native(sequence: tf.Tensor, lengths: tf.Tensor | None) -> tf.Tensor:
        feeds = [sequence] if lengths is None else [sequence, lengths]
        result = tf.numpy_function(lambda *arrays: arrays[0], feeds, tf.float32, name=name)
        # The shape must be part of the graph: what the converter does next depends on it.
        shape = [None, sequence.shape[1], layer.units] if layer.return_sequences else [None, layer.units]
        return tf.ensure_shape(result, shape)

    def call(
        sequence: tf.Tensor,
        initial_state: tf.Tensor | None = None,
        mask: tf.Tensor | None = None,
        training: bool = False,  # noqa: FBT001, FBT002 - the signature of Keras' recurrent layers
    ) -> tf.Tensor:
        if initial_state is not None:
            return original(sequence, initial_state=initial_state, mask=mask, training=training)
        steps = tf.shape(sequence)[1]
        valid = None if mask is None else tf.cast(mask, tf.int32)
        if layer.go_backwards:
            backwards = tf.range(steps - 1, -1, -1)
            sequence = tf.gather(sequence, backwards, axis=1)
            valid = None if valid is None else tf.gather(valid, backwards, axis=1)
        if valid is None:
            return native(sequence, None)
        counts = tf.cumsum(valid, axis=1)
        lengths = counts[:, -1]
        order = tf.argsort(tf.range(steps) - valid * steps, axis=1)
        compact = tf.gather(sequence, order, batch_dims=1)
        # A length of 0 is not defined by ONNX: run one step and put its result aside.
        result = native(compact, tf.maximum(lengths, 1))
        if not layer.return_sequences:
            return tf.where((lengths > 0)[:, None], result, tf.zeros_like(result))
        # Keras repeats the last output at a masked step, zeros before the first valid one.
        padded = tf.pad(result, [[0, 0], [1, 0], [0, 0]])
        spread = tf.gather(padded, counts, batch_dims=1)
        # Bidirectional asks its layers for zeros at masked steps instead.
        return spread * tf.cast(valid, tf.float32)[:, :, None] if layer.zero_output_for_mask else spread

    return call


def _emit(layers: list[tuple[keras.layers.Layer, Weights]], ctx: Any, node: Any, *_: object) -> None:  # noqa: ANN401 - tf2onnx is untyped
    number = int(node.name.rpartition(_STAND_IN)[2].partition("_")[0].partition(":")[0])
    layer, weights = layers[number]
    kind = {"LSTM": "LSTM", "GRU": "GRU"}.get(type(layer).__name__, "RNN")
    result = node.output[0]
    shape, dtype = ctx.get_shape(result), ctx.get_dtype(result)
    sequence, *lengths = node.input
    scope = node.name.rpartition("/")[0]
    ctx.remove_node(node.name)

    def constant(label: str, value: NDArray[np.generic]) -> str:
        return str(ctx.make_const(tf2onnx.utils.make_name(f"{scope}/{label}"), value).output[0])

    def make(op: str, inputs: list[str], **options: Any) -> Any:  # noqa: ANN401 - as above
        return ctx.make_node(op, inputs, name=tf2onnx.utils.make_name(f"{scope}/{op}"), **options)

    bias = "" if weights.bias is None else constant("B", weights.bias)
    time_major = make("Transpose", [sequence], attr={"perm": [1, 0, 2]}).output[0]
    feeds = [time_major, constant("W", weights.kernel), constant("R", weights.recurrent), bias, *lengths]
    native = make(kind, feeds, output_count=2, attr=_attributes(layer, kind))
    if layer.return_sequences:
        axis = constant("direction", np.array([1], np.int64))
        flat = make("Squeeze", [native.output[0], axis]).output[0]
        make("Transpose", [flat], attr={"perm": [1, 0, 2]}, outputs=[result], shapes=[shape], dtypes=[dtype])
    else:
        axis = constant("direction", np.array([0], np.int64))
        make("Squeeze", [native.output[1], axis], outputs=[result], shapes=[shape], dtypes=[dtype])


def _attributes(layer: keras.layers.Layer, kind: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"hidden_size": layer.units}
    chosen = [_ACTIVATIONS[activation] for activation in _activations(layer)]
    if [name for name, _, _ in chosen] != _DEFAULTS[kind]:
        attributes["activations"] = [name for name, _, _ in chosen]
        if any(alpha is not None for _, alpha, _ in chosen):
            attributes["activation_alpha"] = [alpha for _, alpha, _ in chosen if alpha is not None]
            attributes["activation_beta"] = [beta for _, _, beta in chosen if beta is not None]
    if kind == "GRU":
        attributes["linear_before_reset"] = int(layer.reset_after)
    return attributes


def _weights(layer: keras.layers.Layer) -> Weights:
    """Keras' gates i, f, c, o are ONNX' i, o, f, c; those of a GRU stand alike: z, r, h."""
    cell = layer.cell

    def ordered(variable: Any) -> NDArray[np.float32]:  # noqa: ANN401 - a Keras variable
        array = np.asarray(variable, np.float32)
        if isinstance(layer, keras.layers.LSTM):
            i, f, c, o = np.split(array, 4, axis=-1)
            array = np.concatenate([i, o, f, c], axis=-1)
        return array

    bias = None
    if cell.bias is not None:
        given = ordered(cell.bias)
        # With reset_after a GRU has an input and a recurrent bias; all others have one.
        halves = given if given.ndim > 1 else np.stack([given, np.zeros_like(given)])
        bias = halves.reshape(1, -1)
    return Weights(ordered(cell.kernel).T[None], ordered(cell.recurrent_kernel).T[None], bias)
