"""What a recurrent layer's ``call`` is replaced by while its model is traced: one node, which nodes.py replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import keras, tf
from radserve_export.from_keras.recurrent.nodes import Call
from radserve_export.from_keras.recurrent.operators import cells_of, is_stack, operator_of

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "native_recurrent_"


class StandIns:
    """The stand-ins of one tracing, found again by the name of their node."""

    def __init__(self) -> None:
        self._calls: list[Call] = []

    def of(self, node_name: str) -> Call:
        """The call that a node stands for."""
        number = node_name.rpartition(_PREFIX)[2].partition("_")[0].partition(":")[0]
        return self._calls[int(number)]

    def call_of(self, layer: keras.layers.RNN, path: str) -> Callable[..., Any]:
        """A ``call`` for a layer, with the signature and the results of its own.

        Args:
            layer: It must have native operators.
            path: Where in the model, for messages.
        """

        def call(
            sequence: tf.Tensor,
            initial_state: Any = None,  # noqa: ANN401 - a tensor, a list of them, or a list of lists
            mask: Any = None,  # noqa: ANN401 - a tensor, or a list of one
            training: bool = False,  # noqa: FBT001, FBT002 - the signature of Keras' recurrent layers
        ) -> Any:  # noqa: ANN401 - a tensor, or a tuple of what the layer returns
            cells = cells_of(layer)
            if training and any(cell.dropout or cell.recurrent_dropout for cell in cells):
                msg = (
                    f"layer {path} cannot be exported: it is called with training=True, and drops values at random:"
                    " call it with training=False"
                )
                raise ConversionError(msg)
            states = [tf.cast(state, tf.float32) for state in keras.tree.flatten(initial_state) if state is not None]
            valid = _valid(mask, sequence)
            name = f"{_PREFIX}{len(self._calls)}"
            made = Call(
                operators=[operator_of(cell) for cell in cells],
                steps=sequence.shape[1],
                is_masked=valid is not None,
                has_states=bool(states),
                go_backwards=layer.go_backwards,
                return_sequences=layer.return_sequences,
                zero_output_for_mask=layer.zero_output_for_mask,
                # Keras' unrolled layers look up in the mask as it was which reversed outputs to show.
                shows_unreversed=layer.unroll and layer.return_sequences,
            )
            self._calls.append(made)
            feeds = [sequence, *([] if valid is None else [valid]), *states]
            units = [
                cells[-1].units,
                *(cell.units for cell, one in zip(cells, made.operators, strict=True) for _ in range(one.states)),
            ]
            result, *last = tf.numpy_function(_never_run, feeds, [tf.float32] * len(units), name=name)
            # The shapes must be part of the graph: what the converter does next depends on them.
            shape = [None, sequence.shape[1], units[0]] if layer.return_sequences else [None, units[0]]
            result = tf.ensure_shape(result, shape)
            last = [tf.ensure_shape(state, [None, size]) for state, size in zip(last, units[1:], strict=True)]
            return (result, *_in_form_of(layer, initial_state, last)) if layer.return_state else result

        return call


def _never_run(*_: object) -> None:
    msg = "a stand-in is converted, not run"
    raise AssertionError(msg)


def _valid(mask: Any, sequence: tf.Tensor) -> tf.Tensor | None:  # noqa: ANN401 - as in call
    """A mask as booleans (batch, steps); Keras takes any dtype, and a further axis of 1."""
    first = keras.tree.flatten(mask)[0]
    if first is None:
        return None
    valid = tf.cast(first, tf.bool)
    return valid if len(valid.shape) == 2 else tf.reshape(valid, tf.shape(sequence)[:2])  # noqa: PLR2004 - said above


def _in_form_of(layer: keras.layers.RNN, given: Any, states: list[tf.Tensor]) -> list[Any]:  # noqa: ANN401 - as in call
    """States as Keras returns them: flat for one cell, by cell for a stack of them."""
    if not is_stack(layer.cell):
        return states
    left = iter(states)
    by_cell = [[next(left) for _ in keras.tree.flatten(cell.state_size)] for cell in cells_of(layer)]
    if given is None:
        return list(by_cell)
    return [state if keras.tree.is_nested(one) else state[0] for one, state in zip(given, by_cell, strict=True)]
