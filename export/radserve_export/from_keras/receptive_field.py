"""Which part of a network's input the cells of a feature map lie over.

A map's cells are taken as an even grid, each around the centre of what it
sees (Araujo et al., "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019). Where branches that are shifted against each other
meet, the middle between them counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from radserve_export.from_keras._tensorflow import tf

if TYPE_CHECKING:
    Region = tuple[float, float, float, float]

_KERNEL_OPS = ("Conv2D", "DepthwiseConv2dNative")
_POOLS = ("MaxPool", "AvgPool")
_PADS = ("Pad", "PadV2", "MirrorPad")
_RESIZES = ("ResizeBilinear", "ResizeNearestNeighbor")
# Each place of the result comes from that same place of the inputs.
_POINTWISE = frozenset(
    [
        "Identity",
        "IdentityN",
        "StopGradient",
        "Cast",
        "Add",
        "AddV2",
        "AddN",
        "Sub",
        "Mul",
        "RealDiv",
        "Maximum",
        "Minimum",
        "BiasAdd",
        "ConcatV2",
        "Neg",
        "Square",
        "SquaredDifference",
        "Sqrt",
        "Rsqrt",
        "Exp",
        "Log",
        "Pow",
        "Abs",
        "Erf",
        "Erfc",
        "Sigmoid",
        "Tanh",
        "Relu",
        "Relu6",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Softplus",
        "Softsign",
        "Softmax",
        "SelectV2",
        "FusedBatchNormV3",
        "ClipByValue",
    ]
)
_IMAGE_RANK = 4


class _Axis(NamedTuple):
    """Cell ``i`` covers ``start + i * step`` to ``start + (i + 1) * step`` of the input."""

    start: float
    step: float


_Grid = tuple[_Axis, _Axis]


def covered_region(feature: tf.Tensor, wire: tf.Tensor) -> Region | None:
    """The part of an input that a feature map covers.

    Args:
        feature: ``(batch, rows, columns, channels)``, in the graph of the input.
        wire: The input, same axes.

    Returns:
        Top, left, bottom and right, in the input's pixels; None if it cannot be said.
    """
    known: dict[str, _Grid | None] = {wire.name: (_Axis(0.0, 1.0), _Axis(0.0, 1.0))}
    pending = [feature]
    while pending:
        tensor = pending[-1]
        before = _sources(tensor)
        waiting = [source for source in before if source.name not in known]
        if tensor.name in known or not waiting:
            pending.pop()
            if tensor.name not in known:
                known[tensor.name] = _grid(tensor, [known[source.name] for source in before])
        else:
            pending += waiting
    grid = known[feature.name]
    if grid is None:
        return None
    rows, columns = feature.shape[1:3]
    (top, down), (left, right) = grid
    return top, left, top + rows * down, left + columns * right


def _sources(tensor: tf.Tensor) -> list[tf.Tensor]:
    """The feature maps that one is made of."""
    inputs = [source for source in tensor.op.inputs if source.shape.rank == _IMAGE_RANK]
    if tensor.op.type in _POINTWISE:
        # Weights and channel attention have no places.
        return [source for source in inputs if source.shape[1:3] == tensor.shape[1:3] and source.shape[0] is None]
    return inputs[:1]


def _grid(tensor: tf.Tensor, before: list[_Grid | None]) -> _Grid | None:
    grids = [grid for grid in before if grid is not None]
    if not grids or len(grids) < len(before):
        return None
    if tensor.op.type in _POINTWISE:
        rows, columns = (_together([grid[place] for grid in grids]) for place in (0, 1))
        return None if rows is None or columns is None else (rows, columns)
    rows, columns = (_moved(tensor.op, place, grids[0][place]) for place in (0, 1))
    return None if rows is None or columns is None else (rows, columns)


def _together(axes: list[_Axis]) -> _Axis | None:
    if len({axis.step for axis in axes}) > 1:
        return None
    return _Axis(sum(axis.start for axis in axes) / len(axes), axes[0].step)


def _moved(op: tf.Operation, place: int, axis: _Axis) -> _Axis | None:
    """The grid of an operator's result along one axis."""
    taken, given = op.inputs[0].shape[place + 1], op.outputs[0].shape[place + 1]
    if taken is None or given is None:
        return None
    if op.type in _RESIZES:
        return _Axis(axis.start, axis.step * taken / given)
    if op.type in _PADS:
        padded = tf.get_static_value(op.inputs[1])
        return None if padded is None else _Axis(axis.start - axis.step * int(padded[place + 1][0]), axis.step)
    if op.type in _KERNEL_OPS:
        window = (op.inputs[1].shape[place] - 1) * op.get_attr("dilations")[place + 1] + 1
    elif op.type in _POOLS:
        window = op.get_attr("ksize")[place + 1]
    else:
        return None
    stride, padding = op.get_attr("strides")[place + 1], op.get_attr("padding")
    before = max((given - 1) * stride + window - taken, 0) // 2 if padding == b"SAME" else 0
    if padding == b"EXPLICIT":
        before = op.get_attr("explicit_paddings")[2 * (place + 1)]
    return _Axis(axis.start + axis.step * (window / 2 - before - stride / 2), axis.step * stride)
