"""TensorFlow's graphs to ONNX with tf2onnx: what it lacks, and where it went wrong."""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

from radserve_export.from_keras import gradients
from radserve_export.from_keras._tensorflow import tf, tf2onnx
from radserve_export.graphs import OPSET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Handlers = Mapping[str, tuple[Callable[..., None], list[str]]]

_LOG = logging.getLogger("tf2onnx.tfonnx")
_NOT_KNOWN = "Tensorflow op [%s: %s] is not supported"
_FAILED = "Failed to convert node %r (fct=%r)\n%r"


def emit(concrete: Any, handlers: Handlers, inputs: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, str]]:  # noqa: ANN401 - TensorFlow is untyped
    """Convert a traced function.

    Args:
        concrete: A concrete TensorFlow function.
        handlers: ``custom_op_handlers`` of tf2onnx besides those that are always there.
        inputs: Names of the function's own inputs; whatever else it takes are constants of the model.

    Returns:
        The graph, its values named as TensorFlow names them, and why a node of it
        could not be converted, by the node's name.
    """
    taken = [f"{name}:0" for name in inputs]
    given = [tensor.name for tensor in concrete.outputs]
    frozen = tf2onnx.tf_loader.from_function(concrete, taken, given)
    try:
        return _converted(frozen, handlers, taken, given, careful=False)
    # An optimiser that fails leaves the graph half changed: again from the start, each on a copy that can be dropped.
    except Exception:  # noqa: BLE001 - tf2onnx raises whatever it likes, and does so again if it was not an optimiser
        return _converted(frozen, handlers, taken, given, careful=True)


def _converted(
    frozen: Any,  # noqa: ANN401 - TensorFlow is untyped
    handlers: Handlers,
    taken: list[str],
    given: list[str],
    *,
    careful: bool,
) -> tuple[onnx.ModelProto, dict[str, str]]:
    with _failures() as failures, tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        made = tf2onnx.tfonnx.process_tf_graph(
            graph,
            continue_on_error=True,
            opset=OPSET,
            custom_op_handlers={**_HANDLERS, **gradients.HANDLERS, **handlers},
            input_names=taken,
            output_names=given,
        )
        optimizers = OrderedDict(tf2onnx.optimizer._get_optimizers())  # noqa: SLF001 - their order is theirs to say
        optimizers["optimize_transpose"] = _Transposes
        made = tf2onnx.optimizer.optimize_graph(made, catch_errors=careful, optimizers=optimizers)
        return made.make_model("network"), failures


class _Transposes(TransposeOptimizer):  # type: ignore[misc]  # tf2onnx is untyped
    """Where tf2onnx 1.17 gives up, and leaves pairs of Transpose around convolutions."""

    def _initialize_handlers(self) -> None:
        super()._initialize_handlers()
        self._handler_map["Div"] = self._handle_node_having_branches
        self._handler_map["Pow"] = self._handle_node_having_branches
        self._handler_map["Where"] = self._handle_node_having_branches

    def _add_handler(self, trans: Any, node: Any) -> bool:  # noqa: ANN401 - as above
        """One scalar added to a convolution's result raises, and then no Transpose of the graph is removed."""
        added = node.inputs[1]
        if added.is_const() and not added.get_tensor_value(as_list=False).shape:
            return bool(self._switch_transpose_and_node(node, trans))
        return bool(super()._add_handler(trans, node))

    def _reduce_latest_handler(self, trans: Any, node: Any) -> bool:  # noqa: ANN401 - as above
        """A mean over rows and columns that drops these axes, as GlobalAveragePooling2D is."""
        if node.get_attr_value("keepdims", 1) or not node.inputs[1].is_const():
            return bool(super()._reduce_latest_handler(trans, node))
        perm = list(trans.get_attr_value("perm"))
        reduced = sorted(perm[axis] for axis in node.inputs[1].get_tensor_value())
        kept = [axis for axis in range(len(perm)) if axis not in reduced]
        shape = self._g.get_shape(node.output[0])
        if not self._switch_transpose_and_node(node, trans, update_shape=False):
            return False
        axes = self._g.make_const(tf2onnx.utils.make_name("axes"), np.array(reduced, np.int64))
        self._g.replace_input(node, node.input[1], axes.output[0], 1)
        turned = [kept.index(axis) for axis in perm if axis in kept]
        trans.set_attr("perm", turned)
        if shape:
            self._g.set_shape(node.output[0], [shape[turned.index(axis)] for axis in range(len(kept))])
            self._g.set_shape(trans.output[0], shape)
        return True


@contextmanager
def _failures() -> Iterator[dict[str, str]]:
    """What tf2onnx logs about nodes that it leaves as they are: it goes on, and raises nothing."""
    found: dict[str, str] = {}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arguments = record.args if isinstance(record.args, tuple) else ()
            if record.msg == _NOT_KNOWN:
                found[str(arguments[0])] = f"there is no ONNX operator for {arguments[1]}"
            elif record.msg == _FAILED and record.exc_info:
                found[str(arguments[0])] = str(record.exc_info[1]).strip().partition("\n")[0]

    listener = Listener()
    level, propagate = _LOG.level, _LOG.propagate
    _LOG.addHandler(listener)
    _LOG.setLevel(logging.ERROR)
    _LOG.propagate = False
    try:
        yield found
    finally:
        _LOG.removeHandler(listener)
        _LOG.setLevel(level)
        _LOG.propagate = propagate


def _emit_erfc(ctx: Any, node: Any, *_: object) -> None:  # noqa: ANN401 - as above
    """``1 - erf(x)``, which TensorFlow's gelu is made of and tf2onnx does not know."""
    (x,), (result,) = node.input, node.output
    shape, dtype = ctx.get_shape(result), ctx.get_dtype(result)
    ctx.remove_node(node.name)
    one = ctx.make_const(tf2onnx.utils.make_name("one"), np.ones((), tf2onnx.utils.map_onnx_to_numpy_type(dtype)))
    erf = ctx.make_node("Erf", [x])
    ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=[result], shapes=[shape], dtypes=[dtype])


def _emit_resize(ctx: Any, node: Any, *_: object) -> None:  # noqa: ANN401 - as above
    """To the size that TensorFlow names: tf2onnx writes a factor, and 31 rows out of 12 become 30."""
    if node.get_attr_value("align_corners", 0):
        place, nearest = "align_corners", "round_prefer_ceil"
    elif node.get_attr_value("half_pixel_centers", 0):
        place, nearest = "half_pixel", "round_prefer_ceil"
    else:
        place, nearest = "asymmetric", "floor"
    how: dict[str, Any] = {"mode": "linear"}
    if node.type == "ResizeNearestNeighbor":
        how = {"mode": "nearest", "nearest_mode": nearest}
    elif node.type == "ResizeBicubic":
        # The kernels of TensorFlow's two generations of bicubic resizing.
        newer = place == "half_pixel"
        how = {"mode": "cubic", "cubic_coeff_a": -0.5 if newer else -0.75, "exclude_outside": int(newer)}
    (images, size), (result,) = node.input, node.output
    shape, dtype, before = ctx.get_shape(result), ctx.get_dtype(result), ctx.get_shape(images)
    ctx.remove_node(node.name)
    first = ctx.make_node("Transpose", [images], attr={"perm": [0, 3, 1, 2]}).output[0]
    # Where a whole factor says the same, the batch need not be asked for.
    # (ONNX Runtime 1.32 does not load the attribute axes behind a Transpose.)
    factors = [after / ahead for ahead, after in zip((before or [])[1:3], (shape or [])[1:3], strict=True)]
    if factors and min(*before[1:3], *shape[1:3]) > 0 and all(factor.is_integer() for factor in factors):
        scales = ctx.make_const(tf2onnx.utils.make_name("scales"), np.array([1, 1, *factors], np.float32))
        to = ["", scales.output[0]]
    else:
        to = ["", "", _with_batch_and_channels(ctx, first, size)]
    resized = ctx.make_node(
        "Resize", [first, *to], attr={"coordinate_transformation_mode": place, **how}, dtypes=[dtype]
    )
    if shape:
        ctx.set_shape(resized.output[0], [shape[axis] for axis in (0, 3, 1, 2)])
    turned = {"perm": [0, 2, 3, 1]}
    ctx.make_node("Transpose", resized.output, attr=turned, outputs=[result], shapes=[shape], dtypes=[dtype])


def _with_batch_and_channels(ctx: Any, images: str, size: str) -> str:  # noqa: ANN401 - as above
    def constant(value: int) -> str:
        return str(ctx.make_const(tf2onnx.utils.make_name("axis"), np.array([value], np.int64)).output[0])

    whole = ctx.make_node("Shape", [images]).output[0]
    ahead = ctx.make_node("Slice", [whole, constant(0), constant(2)]).output[0]
    asked = ctx.make_node("Cast", [size], attr={"to": onnx.TensorProto.INT64}).output[0]
    return str(ctx.make_node("Concat", [ahead, asked], attr={"axis": 0}).output[0])


def _emit_bucketize(ctx: Any, node: Any, *_: object) -> None:  # noqa: ANN401 - as above
    """The number of boundaries at or below a value."""
    (x,), (result,) = node.input, node.output
    shape, dtype = ctx.get_shape(result), ctx.get_dtype(result)
    limits = np.array(node.get_attr_value("boundaries"), np.float32)
    ctx.remove_node(node.name)

    def constant(value: Any) -> str:  # noqa: ANN401 - an array
        return str(ctx.make_const(tf2onnx.utils.make_name("bucketize"), value).output[0])

    last = constant(np.array([-1], np.int64))
    number = ctx.make_node("Cast", [x], attr={"to": onnx.TensorProto.FLOAT}).output[0]
    each = ctx.make_node("Unsqueeze", [number, last]).output[0]
    reached = ctx.make_node("GreaterOrEqual", [each, constant(limits)]).output[0]
    counted = ctx.make_node("Cast", [reached], attr={"to": dtype}).output[0]
    total = {"keepdims": 0}
    ctx.make_node("ReduceSum", [counted, last], attr=total, outputs=[result], shapes=[shape], dtypes=[dtype])


_HANDLERS: dict[str, tuple[Callable[..., None], list[str]]] = {
    "Bucketize": (_emit_bucketize, []),
    "Erfc": (_emit_erfc, []),
    "ResizeBicubic": (_emit_resize, []),
    "ResizeBilinear": (_emit_resize, []),
    "ResizeNearestNeighbor": (_emit_resize, []),
}
