"""The ONNX operator of a Keras cell: its weights in ONNX' order, its activations in ONNX' words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from radserve_export.from_keras._tensorflow import keras, tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# ONNX' name, and alpha and beta where it takes them. ONNX' own HardSigmoid has another slope than Keras'.
ACTIVATIONS: dict[Callable[..., Any], tuple[str, float | None, float | None]] = {
    keras.activations.sigmoid: ("Sigmoid", None, None),
    keras.activations.tanh: ("Tanh", None, None),
    keras.activations.relu: ("Relu", None, None),
    keras.activations.softsign: ("Softsign", None, None),
    keras.activations.softplus: ("Softplus", None, None),
    keras.activations.hard_sigmoid: ("HardSigmoid", 1 / 6, 0.5),
    keras.activations.linear: ("Affine", 1.0, 0.0),
    keras.activations.elu: ("Elu", 1.0, None),
}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


class Operator(NamedTuple):
    """An ONNX operator with the weights of a cell.

    Attributes:
        kind: LSTM, GRU or RNN.
        states: How many it carries: 2 for an LSTM, 1 for the others.
        attributes: Of the ONNX node.
        kernel: W ``(1, gates * units, features)``.
        recurrent: R ``(1, gates * units, units)``.
        bias: B ``(1, 2 * gates * units)``.
    """

    kind: str
    states: int
    attributes: dict[str, Any]
    kernel: NDArray[np.float32]
    recurrent: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def operator_of(cell: keras.layers.Layer) -> Operator:
    """The operator that does what a cell does at every step; its activations must be native."""
    kind = _kind(cell)
    # Variables have no value inside a graph that is being traced.
    with tf.init_scope():
        bias = None
        if cell.bias is not None:
            given = _in_order(cell, cell.bias)
            # With reset_after a GRU has an input and a recurrent bias; all others have one.
            bias = (given if given.ndim > 1 else np.stack([given, np.zeros_like(given)])).reshape(1, -1)
        kernel, recurrent = (_in_order(cell, weight).T[None] for weight in (cell.kernel, cell.recurrent_kernel))
    states = 2 if kind == "LSTM" else 1
    return Operator(kind, states, _attributes(cell, kind), kernel, recurrent, bias)


def cells_of(layer: keras.layers.RNN) -> list[keras.layers.Layer]:
    """The cells that a step goes through, in their order."""
    return list(layer.cell.cells) if is_stack(layer.cell) else [layer.cell]


def is_stack(cell: keras.layers.Layer) -> bool:
    """Whether a cell is Keras' stack of cells."""
    return type(cell) is keras.layers.StackedRNNCells


def _kind(cell: keras.layers.Layer) -> str:
    return {keras.layers.LSTMCell: "LSTM", keras.layers.GRUCell: "GRU"}.get(type(cell), "RNN")


def activations_of(cell: keras.layers.Layer) -> list[Callable[..., Any]]:
    """In ONNX' order: of the gates, of the candidate, of the output."""
    of_kind = {
        "LSTM": lambda: [cell.recurrent_activation, cell.activation, cell.activation],
        "GRU": lambda: [cell.recurrent_activation, cell.activation],
        "RNN": lambda: [cell.activation],
    }
    return of_kind[_kind(cell)]()


def _attributes(cell: keras.layers.Layer, kind: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"hidden_size": cell.units}
    chosen = [ACTIVATIONS[activation] for activation in activations_of(cell)]
    if [name for name, _, _ in chosen] != _DEFAULTS[kind]:
        attributes["activations"] = [name for name, _, _ in chosen]
        # Each function takes the next of those that it needs, in the order of the functions.
        parameters = {"alpha": [one[1] for one in chosen], "beta": [one[2] for one in chosen]}
        for name, values in parameters.items():
            if needed := [value for value in values if value is not None]:
                attributes[f"activation_{name}"] = needed
    if kind == "GRU":
        attributes["linear_before_reset"] = int(cell.reset_after)
    return attributes


def _in_order(cell: keras.layers.Layer, variable: Any) -> NDArray[np.float32]:  # noqa: ANN401 - a Keras variable
    """Keras' gates i, f, c, o are ONNX' i, o, f, c; those of a GRU stand alike: z, r, h."""
    array = np.asarray(variable, np.float32)
    if _kind(cell) == "LSTM":
        i, f, c, o = np.split(array, 4, axis=-1)
        array = np.concatenate([i, o, f, c], axis=-1)
    return array
