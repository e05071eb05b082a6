"""Keras to ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.errors import ConversionError, SpecError
from radserve_export.from_keras._tensorflow import keras, tf, tf2onnx
from radserve_export.from_keras.recurrent import native_recurrent
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT, OPSET
from radserve_export.graphs.cleanup import published_form
from radserve_export.network import Conversion, Form, Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Runner

_PLAIN = Conversion(form=Form.PLAIN)


def convert(model: keras.Model, conversion: Conversion = _PLAIN, *, source_sha256: str) -> Network:
    """Convert a Keras model.

    Args:
        model: A Sequential or functional model whose batch axis is free.
        conversion: What to make of it.
        source_sha256: Hash of the file it came from.

    Raises:
        SpecError: Several inputs or outputs, but names are not kept.
        ConversionError: An operator, a shape or a kind of model that cannot be served.
    """
    if not getattr(model, "inputs", None):
        msg = f"model {model.name} does not say what it takes: build it as a Sequential or functional model"
        raise ConversionError(msg)
    inputs, outputs = _names(model.inputs), _names(model.outputs)
    if conversion.form is not Form.NAMED:
        if len(inputs) != 1 or len(outputs) != 1:
            msg = f"the model has {len(inputs)} inputs and {len(outputs)} outputs: only task tensors takes several"
            raise SpecError(msg)
        inputs, outputs = [NETWORK_INPUT], [NETWORK_OUTPUT]
    elif len({*inputs, *outputs}) != len(inputs) + len(outputs):
        outputs = [f"{name}_output" if name in inputs else name for name in outputs]
    for tensor, name in zip(model.inputs, inputs, strict=True):
        if tensor.shape[0] is not None:
            msg = f"input {name} has a fixed batch of {tensor.shape[0]}: build the model without batch_size"
            raise ConversionError(msg)
    embeddings = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]  # noqa: SLF001 - as in recurrent.py
    return Network(
        graph=_graph(model, inputs, outputs),
        reference=_reference(model, inputs, outputs),
        vocabulary=min((layer.input_dim for layer in embeddings), default=None),
        source_sha256=source_sha256,
        tools={"keras": keras.__version__, "tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__},
    )


def _names(tensors: Sequence[Any]) -> list[str]:
    """Names of the layers that the tensors come from, numbered where one layer gives several."""
    names: list[str] = []
    for tensor in tensors:
        base = tensor._keras_history.operation.name  # noqa: SLF001 - tensors themselves have generated names
        names.append(base if base not in names else f"{base}_{names.count(base)}")
    return names


def _call(model: keras.Model, arrays: Sequence[Any]) -> list[Any]:
    structure = getattr(model, "_inputs_struct", None)
    packed = arrays[0] if structure is None else keras.tree.pack_sequence_as(structure, list(arrays))
    return list(keras.tree.flatten(model(packed, training=False)))


def _traced(model: keras.Model) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"radserve_input_{number}")
        for number, tensor in enumerate(model.inputs)
    ]
    return tf.function(
        lambda *arrays: _call(model, arrays), input_signature=signature, autograph=False, jit_compile=False
    )


def _graph(model: keras.Model, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    try:
        with native_recurrent(model) as handlers:
            function = _traced(model)
            converted, _ = tf2onnx.convert.from_function(
                function,
                input_signature=function.input_signature,
                opset=OPSET,
                custom_op_handlers={**handlers, "Erfc": (_emit_erfc, [])},
            )
    # Keras, TensorFlow and tf2onnx raise whatever they like: to the user it is one thing.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        msg = f"model {model.name} cannot be converted: {type(error).__name__}: {first}"
        raise ConversionError(msg) from error
    if len(converted.graph.input) != len(inputs) or len(converted.graph.output) != len(outputs):
        msg = f"model {model.name}: an input that nothing reads, or an output that is an input, cannot be served"
        raise ConversionError(msg)
    return published_form(
        converted,
        inputs={name: tensor.shape for name, tensor in zip(inputs, model.inputs, strict=True)},
        outputs={name: tensor.shape for name, tensor in zip(outputs, model.outputs, strict=True)},
        graph_name="network",
    )


def _emit_erfc(ctx: Any, node: Any, *_: object) -> None:  # noqa: ANN401 - tf2onnx is untyped
    """``1 - erf(x)``, which TensorFlow's gelu is made of and tf2onnx does not know."""
    (x,), (result,) = node.input, node.output
    shape, dtype = ctx.get_shape(result), ctx.get_dtype(result)
    ctx.remove_node(node.name)
    one = ctx.make_const(tf2onnx.utils.make_name("one"), np.ones((), tf2onnx.utils.map_onnx_to_numpy_type(dtype)))
    erf = ctx.make_node("Erf", [x])
    ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=[result], shapes=[shape], dtypes=[dtype])


def _reference(model: keras.Model, inputs: list[str], outputs: list[str]) -> Runner:
    """The model's own layers, as TensorFlow runs them; eagerly, a recurrent layer would take seconds."""
    function = _traced(model)

    def run(arrays: Arrays) -> dict[str, NDArray[np.generic]]:
        answers = function(*(tf.constant(arrays[name]) for name in inputs))
        return {name: np.asarray(answer) for name, answer in zip(outputs, answers, strict=True)}

    return run
