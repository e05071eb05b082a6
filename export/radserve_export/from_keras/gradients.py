"""Gradients that can be converted: those of TensorFlow are made of operators that ONNX has not.

They are for what follows the last convolution of an image classifier:
activations, normalisation, pooling, branches that meet. TensorFlow's own also
reckon with shapes that only a run knows; here all but the batch axis is known.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve_export.from_keras._tensorflow import tf, tf2onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Gradient = Callable[[Any, Any], Any]

_RELU6_TOP = 6
_TO_NCHW, _TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
# Klambauer et al., "Self-Normalizing Neural Networks", 2017: scale * alpha of selu, and scale.
_SELU_SCALE_ALPHA, _SELU_SCALE = 1.7580993408473768599402175208123, 1.0507009873554804934193349852946


def _like(gradient: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Sum a gradient over the axes along which an operand was repeated."""
    missing = gradient.shape.rank - wanted.shape.rank
    repeated = [axis for axis, length in enumerate(wanted.shape) if length == 1 and gradient.shape[axis + missing] != 1]
    if missing:
        gradient = tf.reduce_sum(gradient, axis=list(range(missing)))
    return tf.reduce_sum(gradient, axis=repeated, keepdims=True) if repeated else gradient


def _add(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    return _like(gradient, op.inputs[0]), _like(gradient, op.inputs[1])


def _sub(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    return _like(gradient, op.inputs[0]), _like(-gradient, op.inputs[1])


def _mul(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    a, b = op.inputs
    return _like(gradient * b, a), _like(gradient * a, b)


def _div(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    a, b = op.inputs
    return _like(gradient / b, a), _like(-gradient * op.outputs[0] / b, b)


def _squared_difference(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    a, b = op.inputs
    twice = 2 * gradient * (a - b)
    return _like(twice, a), _like(-twice, b)


def _kept(op: Any, result: Any) -> Any:  # noqa: ANN401 - as above
    """What was reduced away comes back as axes of length 1."""
    reduced, axes = op.inputs[0], np.atleast_1d(tf.get_static_value(op.inputs[1]))
    kept = [1 if axis in axes % reduced.shape.rank else length for axis, length in enumerate(reduced.shape)]
    return tf.reshape(result, [-1 if length is None else length for length in kept])


def _sum(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    return _kept(op, gradient) * tf.ones_like(op.inputs[0]), None


def _max(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    is_largest = tf.cast(tf.equal(op.inputs[0], _kept(op, op.outputs[0])), gradient.dtype)
    many = tf.reduce_sum(is_largest, axis=tf.get_static_value(op.inputs[1]), keepdims=True)
    return is_largest / many * _kept(op, gradient), None


def _mean(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    each, _ = _sum(op, gradient)
    return each * (op.outputs[0].shape[1:].num_elements() / op.inputs[0].shape[1:].num_elements()), None


def _concat(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    *joined, axis_tensor = op.inputs
    axis = int(tf.get_static_value(axis_tensor))
    return [*tf.split(gradient, [part.shape[axis] for part in joined], axis=axis), None]


def _convolution(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    image, kernel = op.inputs
    attributes = ("strides", "padding", "explicit_paddings", "dilations", "data_format")
    options = {name: op.get_attr(name) for name in attributes}
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(image), filter=kernel, out_backprop=gradient, **options
    ), None


def _leaky_relu(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    return tf.where(op.inputs[0] > 0, gradient, gradient * op.get_attr("alpha"))


def _elu(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    y = op.outputs[0]
    return tf.where(y < 0, gradient * (y + 1), gradient)


def _selu(op: Any, gradient: Any) -> Any:  # noqa: ANN401 - as above
    y = op.outputs[0]
    return tf.where(y < 0, gradient * (y + _SELU_SCALE_ALPHA), gradient * _SELU_SCALE)


_GRADIENTS: dict[str, Gradient] = {
    "Add": _add,
    "AddV2": _add,
    "Sub": _sub,
    "Mul": _mul,
    "RealDiv": _div,
    "SquaredDifference": _squared_difference,
    "Sum": _sum,
    "Mean": _mean,
    "Max": _max,
    "ConcatV2": _concat,
    "Conv2D": _convolution,
    "Relu": lambda op, gradient: tf.where(op.inputs[0] > 0, gradient, tf.zeros_like(gradient)),
    "Relu6": lambda op, gradient: tf.where(
        (op.inputs[0] > 0) & (op.inputs[0] < _RELU6_TOP), gradient, tf.zeros_like(gradient)
    ),
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "Selu": _selu,
    "Sigmoid": lambda op, gradient: gradient * (op.outputs[0] * (1 - op.outputs[0])),
    "Tanh": lambda op, gradient: gradient * (1 - op.outputs[0] * op.outputs[0]),
    "Softplus": lambda op, gradient: gradient * tf.sigmoid(op.inputs[0]),
    "Softsign": lambda op, gradient: gradient / tf.square(1 + tf.abs(op.inputs[0])),
    "Rsqrt": lambda op, gradient: gradient * (-0.5 * op.outputs[0] * op.outputs[0] * op.outputs[0]),
    "Sqrt": lambda op, gradient: gradient * 0.5 / op.outputs[0],
}
_OWN_NAMES = {kind: f"Radserve{kind}" for kind in _GRADIENTS}
for _kind, _gradient in _GRADIENTS.items():
    tf.RegisterGradient(_OWN_NAMES[_kind])(_gradient)


@contextmanager
def convertible_gradients() -> Iterator[None]:
    """Give the operators that are traced meanwhile gradients that can be converted."""
    with tf.compat.v1.get_default_graph().gradient_override_map(_OWN_NAMES):
        yield


def _windows(node: Any, lengths: list[int]) -> tuple[list[int], list[int], list[int]]:  # noqa: ANN401 - tf2onnx is untyped
    """Size and strides of a pooling, and what it pads: top, left, bottom, right."""
    size, strides = node.get_attr_value("ksize")[1:3], node.get_attr_value("strides")[1:3]
    if node.get_attr_str("padding") != "SAME":
        return size, strides, [0, 0, 0, 0]
    padded = [
        max((-(-length // stride) - 1) * stride + window - length, 0)
        for length, stride, window in zip(lengths, strides, size, strict=True)
    ]
    before = [amount // 2 for amount in padded]
    return size, strides, before + [both - one for both, one in zip(padded, before, strict=True)]


class _Nodes:
    """Nodes in the place of one that tf2onnx does not know."""

    def __init__(self, ctx: Any, node: Any) -> None:  # noqa: ANN401 - tf2onnx is untyped
        self._ctx = ctx
        (self._result,) = node.output
        self.shape, self.dtype = ctx.get_shape(self._result), ctx.get_dtype(self._result)
        ctx.remove_node(node.name)

    def __call__(self, kind: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:  # noqa: ANN401 - as above
        """The name of a node's output, or of several."""
        made = self._ctx.make_node(kind, list(inputs), attr=attributes, output_count=count)
        return made.output[0] if count == 1 else made.output

    def constant(self, value: Any) -> str:  # noqa: ANN401 - any array
        return str(self._ctx.make_const(tf2onnx.utils.make_name("constant"), np.asarray(value)).output[0])

    def finish(self, kind: str, *inputs: str, **attributes: Any) -> None:  # noqa: ANN401 - as above
        self._ctx.make_node(
            kind, list(inputs), attr=attributes, outputs=[self._result], shapes=[self.shape], dtypes=[self.dtype]
        )


def _emit_max_pool(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ANN401 - as above
    """Scatter the gradient to where each window's first maximum lies, as TensorFlow does; what overlaps adds up."""
    del name, args
    values, _, gradient = node.input
    size, strides, pads = _windows(node, ctx.get_shape(values)[1:3])
    make = _Nodes(ctx, node)
    flat = make.constant(np.array([-1], np.int64))
    turned = make("Transpose", values, perm=_TO_NCHW)
    _, places = make("MaxPool", turned, count=2, kernel_shape=size, strides=strides, pads=pads)
    zero = make.constant(np.zeros((), tf2onnx.utils.map_onnx_to_numpy_type(make.dtype)))
    zeros = make("Expand", zero, make("Reshape", make("Size", turned), flat))
    shares = make("Reshape", make("Transpose", gradient, perm=_TO_NCHW), flat)
    added = make("ScatterElements", zeros, make("Reshape", places, flat), shares, axis=0, reduction="add")
    make.finish("Transpose", make("Reshape", added, make("Shape", turned)), perm=_TO_NHWC)


def _emit_average_pool(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ANN401 - as above
    """Spread each window's gradient over the pixels that it is the mean of, padding left out."""
    del name, args
    gradient = node.input[1]
    _, *lengths, channels = ctx.get_shape(node.output[0])
    size, strides, pads = _windows(node, lengths)
    make = _Nodes(ctx, node)
    covered, left = [], []
    for axis, length in enumerate(lengths):
        starts = np.arange(-pads[axis], length + pads[axis + 2] - size[axis] + 1, strides[axis])
        covered.append(np.minimum(starts + size[axis], length) - np.maximum(starts, 0))
        left.append(int(length + pads[axis + 2] - size[axis] - starts[-1]))
    kind = tf2onnx.utils.map_onnx_to_numpy_type(make.dtype)
    shares = make("Div", make("Transpose", gradient, perm=_TO_NCHW), make.constant(np.outer(*covered).astype(kind)))
    spread = make(
        "ConvTranspose",
        shares,
        make.constant(np.ones((channels, 1, *size), kind)),
        group=channels,
        kernel_shape=size,
        strides=strides,
        pads=pads,
        output_padding=left,
    )
    make.finish("Transpose", spread, perm=_TO_NHWC)


HANDLERS: dict[str, tuple[Callable[..., None], list[str]]] = {
    "MaxPoolGrad": (_emit_max_pool, []),
    "AvgPoolGrad": (_emit_average_pool, []),
}
