"""Traces a Keras model for conversion, and says which layer or operation it was that failed.

Some layers are traced in another way than they run, with the same result and
graphs that serve better: TimeDistributed, which Keras unrolls into one copy of
its layer for each step; Dense on the feature maps of a convolutional network,
whose matrix product would need every axis turned round and back; and nearest
UpSampling2D, which repeats rows and columns where ONNX has an operator.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import keras, tf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    Call = Callable[[Sequence[Any]], list[Any]]

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_NUMBERED = re.compile(r"_\d+\Z")
_IMAGE_RANK = 4


def traced(call: Call, specs: Sequence[tf.TensorSpec]) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    """A TensorFlow function of what takes and gives flat lists of tensors."""
    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"radserve_input_{number}") for number, spec in enumerate(specs)
    ]
    # An Identity makes an output of its own of what is an input, or another output, too.
    return tf.function(
        lambda *arrays: [tf.identity(answer) for answer in call(arrays)],
        input_signature=signature,
        autograph=False,
        jit_compile=False,
    )


def one_graph(function: Any) -> Any:  # noqa: ANN401 - as above
    """The concrete function of a traced one, with what Keras compiles apart, such as grouped convolutions, inside."""
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(run_eagerly=True)
    try:
        return function.get_concrete_function()
    finally:
        tf.config.run_functions_eagerly(eagerly)


def failure(model: keras.Model, path: str, reason: str) -> ConversionError:
    """What to raise where a layer, or an operation between layers, cannot be exported.

    Args:
        model: The model.
        path: Where in it, ``outer/inner/layer``; empty if that is not known.
        reason: Why.
    """
    is_operation = path.rpartition("/")[2] in {operation.name for operation in _operations(model)}
    where = f"{'operation' if is_operation else 'layer'} {path}" if path else f"model {model.name}"
    return ConversionError(f"{where} cannot be exported: {reason}")


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line that it says."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def naming_the_layer(model: keras.Model) -> Iterator[None]:
    """Turn whatever a model raises while it is traced or converted into an error that names the layer.

    Raises:
        ConversionError: The layer's path, and why.
    """
    hidden = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()  # otherwise the frames that tell the layer are cut away
    try:
        yield
    except ConversionError:
        raise
    # Keras, TensorFlow and tf2onnx raise whatever they like: to the user it is one thing.
    except Exception as error:
        raise failure(model, _path_of_frames(model, error.__traceback__), first_line(error)) from error
    finally:
        if hidden:
            keras.config.enable_traceback_filtering()


def path_of_scope(model: keras.Model, scope: str) -> str:
    """Path of a layer in its model.

    Args:
        model: The model.
        scope: Name of a node made by the layer, as TensorFlow wrote it: layers' names,
            numbered where a name was there before, around names of operators.

    Returns:
        ``outer/inner/layer``, without the model's own name; empty if no layer is in it.
    """
    known = {layer.name for layer in model._flatten_layers(include_self=False)}  # noqa: SLF001 - Keras has no public walk that enters wrappers and nested models
    names = [part if part in known else _NUMBERED.sub("", part) for part in scope.split("/")]
    return "/".join(name for name in names if name in known)


@contextmanager
def placed(model: keras.Model) -> Iterator[Callable[[str], str]]:
    """Tell where in a model the nodes of its graph come from, for a tracing and after it.

    Layers write their names into those of their nodes. What a functional model
    calls between its layers, such as ``keras.ops.fft``, does not: it is watched.

    Yields:
        A function from a node's name to a path, as path_of_scope.
    """
    found: dict[str, str] = {}

    def watched(operation: keras.Operation) -> Callable[..., Any]:
        original = operation.call

        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it takes and gives
            graph = tf.compat.v1.get_default_graph()
            before = len(graph.get_operations())
            result = original(*args, **options)
            path = f"{path_of_scope(model, graph.get_name_scope())}/{operation.name}".lstrip("/")
            found.update((node.name, path) for node in graph.get_operations()[before:])
            return result

        return call

    operations = _operations(model)
    try:
        for operation in operations:
            operation.call = watched(operation)
        yield lambda node: found.get(node) or path_of_scope(model, node)
    finally:
        for operation in operations:
            vars(operation).pop("call", None)


def _operations(model: keras.Model) -> list[keras.Operation]:
    """What functional models call between their layers, each once."""
    every = [getattr(layer, "operations", []) for layer in model._flatten_layers()]  # noqa: SLF001 - as above
    operations = {id(one): one for one in keras.tree.flatten(every) if isinstance(one, keras.Operation)}
    return [one for one in operations.values() if not isinstance(one, keras.layers.Layer)]


def _path_of_frames(model: keras.Model, trace: TracebackType | None) -> str:
    known = [*model._flatten_layers(include_self=False), *_operations(model)]  # noqa: SLF001 - as above
    layers: list[keras.layers.Layer] = []
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if any(owner is layer for layer in known) and owner not in layers:
            layers.append(owner)
        trace = trace.tb_next
    return "/".join(layer.name for layer in layers)


@contextmanager
def better_layers(model: keras.Model) -> Iterator[None]:
    """Replace ``call`` of the layers that are traced in another way, for the time of a tracing."""
    layers = model._flatten_layers()  # noqa: SLF001 - as above
    is_convolutional = any(isinstance(layer, _CONVOLUTIONS) for layer in layers)
    ways = {keras.layers.TimeDistributed: _all_steps_at_once, keras.layers.UpSampling2D: _resized}
    if is_convolutional:
        ways[keras.layers.Dense] = _as_convolution
    replaced = [layer for layer in layers if type(layer) in ways]
    try:
        for layer in replaced:
            layer.call = ways[type(layer)](layer)
        yield
    finally:
        for layer in replaced:
            if "call" in vars(layer):
                del layer.call


def _all_steps_at_once(layer: keras.layers.TimeDistributed) -> Callable[..., tf.Tensor]:
    """The steps become rows of the batch, and steps again: nothing in inference mixes rows."""

    def call(inputs: tf.Tensor, *, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        inner, steps = layer.layer, inputs.shape[1]
        if steps is None:
            # Keras 3.15, traced, takes the number of rows for the number of steps.
            reason = "Keras itself is wrong on a free number of steps: build the model with a fixed one"
            raise ValueError(reason)
        options: dict[str, Any] = {}
        if inner._call_has_mask_arg and mask is not None:  # noqa: SLF001 - as TimeDistributed does
            options["mask"] = _rows(mask)
        if inner._call_has_training_arg:  # noqa: SLF001 - as above
            options["training"] = training
        with tf.name_scope(inner.name):
            result = inner.call(_rows(inputs), **options)
        axes = [-1, steps, *_known(result)[1:]]
        return tf.ensure_shape(tf.reshape(result, axes), [None, steps, *result.shape[1:]])

    return call


def _rows(sequence: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.reshape(sequence, [-1, *_known(sequence)[2:]]), [None, *sequence.shape[2:]])


def _known(tensor: tf.Tensor) -> list[Any]:
    """A shape whose free axes are tensors."""
    return [tf.shape(tensor)[place] if axis is None else axis for place, axis in enumerate(tensor.shape)]


def _as_convolution(layer: keras.layers.Dense) -> Callable[..., tf.Tensor]:
    """A convolution of one pixel is the same product, in the layout of the convolutions around it."""
    original = layer.call

    def call(inputs: tf.Tensor, *, training: bool | None = None) -> tf.Tensor:
        if len(inputs.shape) != _IMAGE_RANK:
            return original(inputs, training=training)
        result = tf.nn.conv2d(inputs, tf.convert_to_tensor(layer.kernel)[None, None], strides=1, padding="VALID")
        if layer.bias is not None:
            result = tf.nn.bias_add(result, layer.bias)
        return result if layer.activation is None else layer.activation(result)

    return call


def _resized(layer: keras.layers.UpSampling2D) -> Callable[..., tf.Tensor]:
    original = layer.call

    def call(inputs: tf.Tensor) -> tf.Tensor:
        if layer.interpolation != "nearest" or layer.data_format != "channels_last":
            return original(inputs)
        _, rows, columns, _ = _known(inputs)
        size = [rows * layer.size[0], columns * layer.size[1]]
        return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=size)

    return call
