"""Keras to ONNX."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from radserve.contracts import EVIDENCE
from radserve.errors import ConversionError, SpecError
from radserve_export.from_keras._tensorflow import keras, tf, tf2onnx
from radserve_export.from_keras.chance import drawn, refuse_training
from radserve_export.from_keras.evidence import GradCam
from radserve_export.from_keras.generation import join, pieces_of
from radserve_export.from_keras.handlers import emit
from radserve_export.from_keras.recurrent import native_recurrent
from radserve_export.from_keras.signature import as_functional, call, names_of, specs_of
from radserve_export.from_keras.text import take_out_text_layer
from radserve_export.from_keras.tracing import (
    better_layers,
    failure,
    naming_the_layer,
    one_graph,
    placed,
    traced,
)
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import all_nodes
from radserve_export.graphs.cleanup import published_form
from radserve_export.network import DECODER, ENCODER, Conversion, Form, Network, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from radserve_export.from_keras.tracing import Call
    from radserve_export.network import Arrays, Decoding, Runner

    Place = Callable[[str], str]

_PLAIN = Conversion(form=Form.PLAIN)
_NOT_COMPUTED = ("bfloat16", "float8")
_NOT_SERVED = (*_NOT_COMPUTED, "complex")


def convert(model: keras.Model, conversion: Conversion = _PLAIN, *, source_sha256: str) -> Network:
    """Convert a Keras model.

    Args:
        model: Any model. A batch size that it was built with is given up.
        conversion: What to make of it.
        source_sha256: Hash of the file it came from.

    Raises:
        SpecError: Several inputs or outputs, but names are not kept.
        ConversionError: An operator, a shape or a kind of model that cannot be
            served: the layer is named, with its path in the model, and why.
    """
    refuse_training(model)
    model = as_functional(model, conversion.inputs)
    text = take_out_text_layer(model, conversion.inputs[0].dims[0] if conversion.inputs else None)
    if text is not None:
        model = text.model
    if conversion.decoding is not None:
        return _generator(model, conversion.decoding, source_sha256)
    inputs, outputs = names_of(model)
    if conversion.form is not Form.NAMED:
        if len(inputs) != 1 or len(outputs) != 1:
            msg = f"the model has {len(inputs)} inputs and {len(outputs)} outputs: only task tensors takes several"
            raise SpecError(msg)
        inputs, outputs = [NETWORK_INPUT], [NETWORK_OUTPUT]
    specs = dict(zip(inputs, specs_of(model), strict=True))
    whole = part(model, lambda arrays: call(model, arrays), specs, outputs)
    parts = {}
    if conversion.form is Form.EVIDENCE:
        cam = GradCam(model, ends_in_activation=conversion.ends_in_activation)
        taken = cam.inputs(specs, conversion.inputs)
        explained = part(model, cam.served, taken, [*outputs, EVIDENCE], original=cam.original)
        cam.describe(explained.graph)
        parts[Form.EVIDENCE.value] = explained
    network = _network(model, whole, parts, source_sha256)
    return network if text is None else replace(network, tokenizer=text.tokenizer)


def _generator(model: keras.Model, decoding: Decoding, source_sha256: str) -> Network:
    parts = {
        name: part(piece.model, piece.call, piece.inputs, piece.outputs, graph_name=name)
        for name, piece in pieces_of(model).items()
    }
    return _network(model, join(parts[ENCODER], parts[DECODER], decoding), parts, source_sha256)


def _network(model: keras.Model, whole: Part, parts: Mapping[str, Part], source_sha256: str) -> Network:
    embeddings = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]  # noqa: SLF001 - as in tracing.py
    return Network(
        graph=whole.graph,
        reference=whole.reference,
        vocabulary=min((layer.input_dim for layer in embeddings), default=None),
        source_sha256=source_sha256,
        tools={"keras": keras.__version__, "tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__},
        parts=parts,
    )


def part(
    model: keras.Model,
    calls: Call,
    inputs: Mapping[str, tf.TensorSpec],
    outputs: Sequence[str],
    *,
    graph_name: str = "network",
    original: Call | None = None,
) -> Part:
    """Convert what calls a model, or some of its layers.

    Args:
        model: Whose layers are called.
        calls: Takes and gives a flat list of tensors.
        inputs: What it takes, by the names that the graph's inputs get; the batch axis free.
        outputs: Names that the graph's outputs get.
        graph_name: Name of the graph.
        original: What else to compare with than the same call.

    Returns:
        The graph, and what it is to be compared with: the call, as TensorFlow
        runs it with the layers as Keras made them.

    Raises:
        ConversionError: A layer, or an operation between layers, cannot be exported.
    """
    specs = list(inputs.values())
    # Recurrent layers inside a TimeDistributed are replaced, too: it calls them as they are then.
    with naming_the_layer(model), placed(model) as place, native_recurrent(model) as handlers, better_layers(model):
        function = traced(calls, specs)
        concrete = one_graph(function)
        answers = dict(zip(outputs, concrete.outputs, strict=True))
        _refuse_types("input", inputs)
        _refuse_computing(model, concrete.graph.get_operations(), place)
        _refuse_types("output", answers)
        shapes = {name: _shape(name, tensor) for name, tensor in answers.items()}
        arguments = [spec.name for spec in function.input_signature]
        graph, failures = emit(concrete, handlers, arguments)
    _refuse(model, graph, failures, place)
    _restore_inputs(graph.graph, dict(zip(arguments, specs, strict=True)))
    made = published_form(
        graph, inputs={name: spec.shape for name, spec in inputs.items()}, outputs=shapes, graph_name=graph_name
    )
    return Part(graph=made, reference=_reference(original or calls, specs, list(inputs), outputs))


def _shape(name: str, tensor: Any) -> list[int | None]:  # noqa: ANN401 - TensorFlow is untyped
    if not tensor.shape.rank or tensor.shape[0] is not None:
        batch = f"a batch of {tensor.shape[0]} built in" if tensor.shape.rank else "no batch axis"
        msg = f"output {name} has {batch}: build the model without batch_size, for any number of rows"
        raise ConversionError(msg)
    return list(tensor.shape.as_list())


def _refuse_types(side: str, tensors: Mapping[str, Any]) -> None:
    """Refuse numbers that Triton has no type for."""
    for name, tensor in tensors.items():
        if tensor.dtype.name.startswith(_NOT_SERVED):
            msg = (
                f"{side} {name} has elements of type {tensor.dtype.name}, which cannot be served:"
                " build the model with real numbers of type float32 there"
            )
            raise ConversionError(msg)


def _refuse_computing(model: keras.Model, nodes: Sequence[tf.Operation], place: Place) -> None:
    """Refuse numbers that ONNX Runtime does not compute with: the converter goes on, and names no layer."""
    computing = [node for node in nodes if any(t.dtype.base_dtype.name.startswith(_NOT_COMPUTED) for t in node.outputs)]
    if not computing:
        return
    # Keras casts what a layer takes before it enters the layer.
    first = min(computing, key=lambda node: (not place(node.name), node.type == "Cast"))
    reason = (
        f"it computes in {first.outputs[0].dtype.base_dtype.name}, which ONNX Runtime does not: build the model with"
        " dtype float32, load the same weights, and save the model again"
    )
    raise failure(model, place(first.name), reason)


def _refuse(model: keras.Model, graph: onnx.ModelProto, failures: Mapping[str, str], place: Place) -> None:
    """Refuse a graph with nodes that could not be converted, or draw; those that were dropped since do no harm."""
    nodes = [(node.name, drawn(node.op_type)) for node in all_nodes(graph.graph.node)]
    reasons = [(name, reason) for name, reason in nodes if reason] or [
        (name, failures[name]) for name, _ in nodes if name in failures
    ]
    for name, reason in reasons[:1]:
        raise failure(model, place(name), reason)


def _restore_inputs(graph: onnx.GraphProto, inputs: Mapping[str, tf.TensorSpec]) -> None:
    """The inputs in their order, those that nothing reads included: the converter leaves them out."""
    there = {value.name.partition(":")[0]: value for value in graph.input}
    ordered = [
        there.get(name)
        or onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype.as_numpy_dtype)), spec.shape.as_list()
        )
        for name, spec in inputs.items()
    ]
    del graph.input[:]
    graph.input.extend(ordered)


def _reference(calls: Call, specs: Sequence[tf.TensorSpec], inputs: Sequence[str], outputs: Sequence[str]) -> Runner:
    """The model's own layers, as TensorFlow runs them; eagerly, a recurrent layer would take seconds."""
    function = traced(calls, specs)

    def run(arrays: Arrays) -> dict[str, NDArray[np.generic]]:
        answers = function(*(tf.constant(arrays[name]) for name in inputs))
        return {name: np.asarray(answer) for name, answer in zip(outputs, answers, strict=True)}

    return run
