"""The ONNX nodes of one call of a recurrent layer.

ONNX knows sequence lengths, not masks. So the valid steps are gathered to the
front, in their order: exact for any mask, not only for right-padding. An LSTM
and a GRU become one node; so does a SimpleRNN over many steps, or a free number
of them, while one over few becomes a node for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import TensorProto

from radserve_export.from_keras._tensorflow import tf2onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from radserve_export.from_keras.recurrent.operators import Operator

_LAST = np.iinfo(np.int64).max
# ONNX Runtime computes the activation of its RNN operator value by value: a node for each step is faster. Of more
# steps the graph would grow out of proportion.
_STEPS_BY_NODE = 256


class Call(NamedTuple):
    """One call of a recurrent layer.

    Its operands are the sequence ``(batch, steps, features)``, the mask
    ``(batch, steps)`` if there is one, and the initial states ``(batch, units)``
    of all cells if they are given. Its results are the layer's output, then the
    last states of all cells.

    Attributes:
        operators: Of its cells, in their order.
        steps: Of the sequence; None if that is free.
        is_masked: Whether a mask is among the operands.
        has_states: Whether initial states are.
        go_backwards: As the layer's.
        return_sequences: As the layer's.
        zero_output_for_mask: As the layer's.
        shows_unreversed: Of a layer that goes backwards with zero_output_for_mask:
            the mask's own order, not the reversed one, says which outputs are zero.
    """

    operators: Sequence[Operator]
    steps: int | None
    is_masked: bool
    has_states: bool
    go_backwards: bool
    return_sequences: bool
    zero_output_for_mask: bool
    shows_unreversed: bool


class _Nodes:
    """Adds nodes to a graph of tf2onnx, all named after one layer."""

    def __init__(self, ctx: Any, scope: str) -> None:  # noqa: ANN401 - tf2onnx is untyped
        self._ctx, self._scope = ctx, scope

    def __call__(self, op: str, *operands: str, results: int = 1, **attributes: Any) -> list[str]:  # noqa: ANN401 - whatever ONNX has
        node = self._ctx.make_node(op, list(operands), name=self._name(op), output_count=results, attr=attributes)
        return list(node.output)

    def one(self, op: str, *operands: str, **attributes: Any) -> str:  # noqa: ANN401 - whatever ONNX has
        return self(op, *operands, **attributes)[0]

    def constant(self, values: object, dtype: type[np.generic] = np.int64) -> str:
        return str(self._ctx.make_const(self._name("constant"), np.asarray(values, dtype)).output[0])

    def backwards(self, tensor: str) -> str:
        """Reverse axis 1."""
        ends = (self.constant([value]) for value in (-1, -_LAST, 1, -1))
        return self.one("Slice", tensor, *ends)

    def take(self, tensor: str, places: str) -> str:
        """Of each row of (batch, steps, values) the steps at (batch, steps)."""
        return self.one("GatherND", tensor, self.one("Unsqueeze", places, self.constant([2])), batch_dims=1)

    def _name(self, label: str) -> str:
        return str(tf2onnx.utils.make_name(f"{self._scope}/{label}"))


class _Mask(NamedTuple):
    """What follows from a mask, in the order in which the layer goes through it."""

    valid: str  # (batch, steps), int32
    shown: str  # (batch, steps), bool: where zero_output_for_mask leaves the outputs
    lengths: str  # (batch,), int32, 0 included
    is_any: str  # (batch, 1), bool: whether a row has a valid step


def emit(call_of: Callable[[str], Call], ctx: Any, node: Any, *_: object) -> None:  # noqa: ANN401 - as above
    """Put native nodes in the place of a stand-in's: a handler of tf2onnx."""
    call = call_of(node.name)
    nodes = _Nodes(ctx, node.name.rpartition("/")[0])
    wanted = [(name, ctx.get_shape(name), ctx.get_dtype(name)) for name in node.output]
    sequence, *states = node.input
    ctx.remove_node(node.name)
    mask = _mask(nodes, call, states.pop(0)) if call.is_masked else None
    if call.go_backwards:
        sequence = nodes.backwards(sequence)
    for made, (name, shape, dtype) in zip(_results(nodes, call, sequence, mask, states), wanted, strict=True):
        ctx.make_node("Identity", [made], outputs=[name], shapes=[shape], dtypes=[dtype])


def _mask(nodes: _Nodes, call: Call, given: str) -> _Mask:
    ordered = nodes.backwards(given) if call.go_backwards else given
    valid = nodes.one("Cast", ordered, to=TensorProto.INT32)
    lengths = nodes.one("ReduceSum", valid, nodes.constant([1]), keepdims=0)
    is_any = nodes.one("Greater", lengths, nodes.constant(0, np.int32))
    column = nodes.one("Unsqueeze", is_any, nodes.constant([1]))
    return _Mask(valid, given if call.shows_unreversed else ordered, lengths, column)


def _results(nodes: _Nodes, call: Call, sequence: str, mask: _Mask | None, states: list[str]) -> list[str]:
    """The layer's output and the last states of its cells."""
    lengths, zero = "", nodes.constant(0, np.float32)
    if mask is not None:
        sequence = _valid_first(nodes, sequence, mask)
        # A length of 0 is not defined by ONNX: such a row runs one step, and its result is put aside.
        lengths = nodes.one("Max", mask.lengths, nodes.constant(1, np.int32))
    outputs, last = nodes.one("Transpose", sequence, perm=[1, 0, 2]), []
    for operator in call.operators:
        start, states = (states[: operator.states], states[operator.states :]) if call.has_states else ([], [])
        if operator.kind == "RNN" and call.steps is not None and call.steps <= _STEPS_BY_NODE:
            outputs, *ended = _step_by_step(nodes, operator, outputs, lengths, start, steps=call.steps)
        else:
            outputs, *ended = _operator(nodes, operator, outputs, lengths, start)
        if mask is not None:
            unchanged = start or [zero] * operator.states
            ended = [nodes.one("Where", mask.is_any, *pair) for pair in zip(ended, unchanged, strict=True)]
        last.append(ended)
    output = last[-1][0]
    if call.return_sequences:
        output = _spread(nodes, call, outputs, mask)
    elif mask is not None and (call.zero_output_for_mask or call.has_states):
        # A row without any valid step keeps its initial state, but has no output.
        final = nodes.one("Gather", mask.shown, nodes.constant([-1]), axis=1)
        output = nodes.one("Where", final if call.zero_output_for_mask else mask.is_any, output, zero)
    return [output, *(state for ended in last for state in ended)]


def _valid_first(nodes: _Nodes, sequence: str, mask: _Mask) -> str:
    """Gather the valid steps to the front; which of the others follow them does not matter."""
    steps = nodes.one("Shape", mask.valid, start=1, end=2)
    count = nodes.one("Squeeze", steps)
    down = nodes.one("Range", count, nodes.constant(0), nodes.constant(-1))
    keys = nodes.one("Mul", mask.valid, nodes.one("Cast", down, to=TensorProto.INT32))
    _, order = nodes("TopK", keys, steps, results=2, axis=1)
    return nodes.take(sequence, order)


def _operator(nodes: _Nodes, operator: Operator, sequence: str, lengths: str, states: list[str]) -> list[str]:
    """The native node: (steps, batch, features) to (steps, batch, units) and the last states (batch, units)."""
    weights = [operator.kernel, operator.recurrent, operator.bias]
    feeds = [sequence, *("" if one is None else nodes.constant(one, np.float32) for one in weights), lengths]
    feeds += [nodes.one("Unsqueeze", state, nodes.constant([0])) for state in states]
    while not feeds[-1]:
        feeds.pop()
    outputs, *last = nodes(operator.kind, *feeds, results=1 + operator.states, **operator.attributes)
    ended = [nodes.one("Squeeze", state, nodes.constant([0])) for state in last]
    return [nodes.one("Squeeze", outputs, nodes.constant([1])), *ended]


def _step_by_step(
    nodes: _Nodes, operator: Operator, sequence: str, lengths: str, states: list[str], *, steps: int
) -> list[str]:
    """As ``_operator``, of an RNN and a fixed number of steps."""
    names = {"alpha": "activation_alpha", "beta": "activation_beta"}
    parameters = {name: operator.attributes[key][0] for name, key in names.items() if key in operator.attributes}
    (function,) = operator.attributes.get("activations", ["Tanh"])
    if function == "Affine":  # linear, which no node of ONNX is called
        function, parameters = "Identity", {}
    kernel, recurrent = (nodes.constant(one[0].T, np.float32) for one in (operator.kernel, operator.recurrent))
    bias = [] if operator.bias is None else [nodes.constant(operator.bias.reshape(2, -1).sum(0), np.float32)]
    # Steps and batch as one axis: ONNX Runtime crashes where it fuses a Transpose of half floats into a MatMul.
    flat = nodes.one("Reshape", sequence, nodes.constant([-1, operator.kernel.shape[-1]]))
    outputs = list(states)
    for step in nodes("Split", nodes.one("Gemm", flat, kernel, *bias), results=steps, axis=0, num_outputs=steps):
        summed = nodes.one("Gemm", outputs[-1], recurrent, step) if outputs else step
        outputs.append(nodes.one(function, summed, **parameters))
    shape = nodes.constant([steps, -1, operator.attributes["hidden_size"]])
    every = nodes.one("Reshape", nodes.one("Concat", *outputs[len(states) :], axis=0), shape)
    if not lengths:
        return [every, outputs[-1]]
    # The steps that follow the last valid one say nothing of those before.
    places = nodes.one("Sub", nodes.one("Cast", lengths, to=TensorProto.INT64), nodes.constant(1))
    column = nodes.one("Unsqueeze", places, nodes.constant([1]))
    ended = nodes.take(nodes.one("Transpose", every, perm=[1, 0, 2]), column)
    return [every, nodes.one("Squeeze", ended, nodes.constant([1]))]


def _spread(nodes: _Nodes, call: Call, outputs: str, mask: _Mask | None) -> str:
    """The outputs (steps, batch, units) as Keras returns them: (batch, steps, units), at masked steps too."""
    if mask is None:
        return nodes.one("Transpose", outputs, perm=[1, 0, 2])
    # Keras repeats the last output at a masked step, zeros before the first valid one.
    padded = nodes.one("Pad", outputs, nodes.constant([1, 0, 0, 0, 0, 0]))
    counts = nodes.one("CumSum", mask.valid, nodes.constant(1))
    places = nodes.one("Cast", counts, to=TensorProto.INT64)
    spread = nodes.take(nodes.one("Transpose", padded, perm=[1, 0, 2]), places)
    if not call.zero_output_for_mask:
        return spread
    # Bidirectional asks its layers for zeros at masked steps instead.
    shown = nodes.one("Unsqueeze", mask.shown, nodes.constant([2]))
    return nodes.one("Where", shown, spread, nodes.constant(0, np.float32))
