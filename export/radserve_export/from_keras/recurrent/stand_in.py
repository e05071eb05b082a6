"""What a recurrent layer's ``call`` is replaced by while its model is traced.

ONNX knows sequence lengths, not masks. So the valid steps are gathered to the
front, in their order: exact for any mask, not only for right-padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from radserve_export.from_keras._tensorflow import keras, tf
from radserve_export.from_keras.recurrent.layers import cells_of
from radserve_export.from_keras.recurrent.nodes import StandIn, operator_of

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "native_recurrent_"


class _Steps(NamedTuple):
    """A masked sequence with its valid steps in front, and the way back."""

    sequence: tf.Tensor  # (batch, steps, features)
    lengths: tf.Tensor  # (batch,), 0 included
    counts: tf.Tensor  # (batch, steps): valid steps up to each
    shown: tf.Tensor  # (batch, steps): where zero_output_for_mask leaves the outputs


class StandIns:
    """The stand-ins of one tracing, found again by the name of their node."""

    def __init__(self) -> None:
        self._all: list[StandIn] = []

    def of(self, node_name: str) -> StandIn:
        """The stand-in that a node was made by."""
        number = node_name.rpartition(_PREFIX)[2].partition("_")[0].partition(":")[0]
        return self._all[int(number)]

    def call_of(self, layer: keras.layers.RNN) -> Callable[..., Any]:
        """A ``call`` for a layer, with the signature and the results of its own."""

        def call(
            sequence: tf.Tensor,
            initial_state: Any = None,  # noqa: ANN401 - a tensor, a list of them, or a list of lists
            mask: Any = None,  # noqa: ANN401 - a tensor, or a list of one
            training: bool = False,  # noqa: ARG001, FBT001, FBT002 - the signature of Keras' recurrent layers
        ) -> Any:  # noqa: ANN401 - a tensor, or a tuple of what the layer returns
            cells = cells_of(layer)
            given = _states_by_cell(initial_state, len(cells))
            steps = None
            if layer.go_backwards:
                sequence = tf.reverse(sequence, [1])
            outputs, lengths = sequence, None
            valid = _valid(mask, sequence)
            if valid is not None:
                steps = _compact(sequence, valid, layer)
                # A length of 0 is not defined by ONNX: run one step and put its result aside.
                outputs, lengths = steps.sequence, tf.maximum(steps.lengths, 1)
            states = []
            for cell, start in zip(cells, given, strict=True):
                outputs, last = self._run(cell, outputs, lengths, start)
                if steps is not None:
                    some = (steps.lengths > 0)[:, None]
                    unchanged = start or [tf.zeros_like(state) for state in last]
                    last = [tf.where(some, *pair) for pair in zip(last, unchanged, strict=True)]
                states.append(last)
            result = _outputs(layer, outputs, states[-1][0], steps)
            return (result, *_in_form_of(initial_state, states)) if layer.return_state else result

        return call

    def _run(
        self, cell: keras.layers.Layer, sequence: tf.Tensor, lengths: tf.Tensor | None, states: list[tf.Tensor] | None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        name = f"{_PREFIX}{len(self._all)}"
        operator = operator_of(cell)
        self._all.append(StandIn(operator, lengths is not None, states is not None))
        feeds = [sequence, *([] if lengths is None else [lengths]), *(states or [])]
        kinds = [tf.float32] * (1 + operator.states)
        outputs, *last = tf.numpy_function(_never_run, feeds, kinds, name=name)
        # The shapes must be part of the graph: what the converter does next depends on them.
        outputs = tf.ensure_shape(outputs, [None, sequence.shape[1], cell.units])
        return outputs, [tf.ensure_shape(state, [None, cell.units]) for state in last]


def _never_run(*_: object) -> None:
    msg = "a stand-in is converted, not run"
    raise AssertionError(msg)


def _valid(mask: Any, sequence: tf.Tensor) -> tf.Tensor | None:  # noqa: ANN401 - as in call
    """A mask as 0 and 1 (batch, steps), int32; Keras takes any dtype, and an axis of 1 at the end."""
    first = keras.tree.flatten(mask)[0]
    if first is None:
        return None
    return tf.reshape(tf.cast(tf.cast(first, tf.bool), tf.int32), tf.shape(sequence)[:2])


def _compact(sequence: tf.Tensor, valid: tf.Tensor, layer: keras.layers.RNN) -> _Steps:
    shown = valid
    if layer.go_backwards:
        valid = tf.reverse(valid, [1])
        # Keras' unrolled layers compare reversed outputs with the mask as it was.
        shown = shown if layer.unroll and layer.return_sequences else valid
    steps = tf.shape(sequence)[1]
    counts = tf.cumsum(valid, axis=1)
    order = tf.argsort(tf.range(steps) - valid * steps, axis=1)
    return _Steps(tf.gather(sequence, order, batch_dims=1), counts[:, -1], counts, shown)


def _outputs(layer: keras.layers.RNN, outputs: tf.Tensor, last: tf.Tensor, steps: _Steps | None) -> tf.Tensor:
    if steps is None:
        return outputs if layer.return_sequences else last
    if not layer.return_sequences:
        # A row without any valid step has a state, the initial one, but no output.
        shown = steps.shown[:, -1] if layer.zero_output_for_mask else tf.minimum(steps.lengths, 1)
        return last * tf.cast(shown, tf.float32)[:, None]
    # Keras repeats the last output at a masked step, zeros before the first valid one.
    padded = tf.pad(outputs, [[0, 0], [1, 0], [0, 0]])
    spread = tf.gather(padded, steps.counts, batch_dims=1)
    # Bidirectional asks its layers for zeros at masked steps instead.
    return spread * tf.cast(steps.shown, tf.float32)[:, :, None] if layer.zero_output_for_mask else spread


def _states_by_cell(given: Any, cells: int) -> list[list[tf.Tensor] | None]:  # noqa: ANN401 - as in call
    if given is None:
        return [None] * cells
    per_cell = list(given) if keras.tree.is_nested(given) else [given]
    if cells == 1:
        per_cell = [per_cell]
    return [[tf.cast(state, tf.float32) for state in keras.tree.flatten(states)] for states in per_cell]


def _in_form_of(given: Any, states: list[list[tf.Tensor]]) -> list[Any]:  # noqa: ANN401 - as in call
    """States as Keras returns them: flat for one cell, by cell for a stack, bare where a bare one was given."""
    if len(states) == 1:
        return list(states[0])
    if given is None:
        return list(states)
    return [state if keras.tree.is_nested(one) else state[0] for one, state in zip(given, states, strict=True)]
