"""What a Keras model takes and gives, by name: also for models that do not say it themselves."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import keras, tf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from radserve.contracts import TensorSpec

_NOT_IN_TRITONS_NAMES = re.compile(r"[^A-Za-z0-9_.:/-]")


def as_functional(model: keras.Model, given: Sequence[TensorSpec] = ()) -> keras.Model:
    """Make a model say what it takes: Sequential and functional models do, subclassed ones do not.

    Args:
        model: Any model.
        given: What a subclassed model will be fed, without the batch axis. Where
            nothing is given, it takes what it was built with, in its own dtype.

    Returns:
        The model itself, or a functional one around it.

    Raises:
        ConversionError: Neither the model nor anyone else says what it takes, or
            it cannot be called with it.
    """
    if getattr(model, "inputs", None):
        return model
    inputs: dict[str, Any] = {}
    feeds = {name: _with_inputs(name, packed, inputs) for name, packed in _taken(model, given).items()}
    try:
        answers = model(**feeds)
    # A model's own code raises whatever it likes.
    except Exception as error:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
        first_line = str(error).strip().partition("\n")[0]
        msg = f"model {model.name} cannot be called with {shapes}: {type(error).__name__}: {first_line}"
        raise ConversionError(msg) from error
    return model_of(inputs, dict(_flat("output", answers)), name=model.name)


def model_of(inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, name: str) -> keras.Model:
    """A functional model whose outputs have the given names.

    Args:
        inputs: Symbolic inputs, by name.
        outputs: Symbolic outputs, by name; one with the name of an input gets ``_output`` behind it.
        name: The model's name.
    """
    named = {
        output: keras.layers.Identity(name=f"{output}_output" if output in inputs else output, autocast=False)(tensor)
        for output, tensor in outputs.items()
    }
    return keras.Model(dict(inputs), named, name=name)


def specs_of(model: keras.Model) -> list[tf.TensorSpec]:
    """What a functional model takes, the batch axis free."""
    return [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in model.inputs]


def names_of(model: keras.Model) -> tuple[list[str], list[str]]:
    """Names of a functional model's inputs and outputs, as Triton takes them, no two alike.

    They are the names of the layers that the tensors come from, numbered where
    one layer gives several. What Triton takes in no name becomes an underscore.
    """
    taken: set[str] = set()
    inputs = [_unique(name, taken) for name in _layers_behind(model.inputs)]
    outputs = [_unique(f"{name}_output" if name in inputs else name, taken) for name in _layers_behind(model.outputs)]
    return inputs, outputs


def call(model: keras.Model, arrays: Sequence[Any]) -> list[Any]:
    """Call a functional model with a flat list of tensors, in the order of its inputs.

    Returns:
        Its outputs, in their order.
    """
    structure = getattr(model, "_inputs_struct", None)
    packed = arrays[0] if structure is None else keras.tree.pack_sequence_as(structure, list(arrays))
    return list(keras.tree.flatten(model(packed, training=False)))


def _layers_behind(tensors: Iterable[Any]) -> list[str]:
    names: list[str] = []
    seen: dict[str, int] = {}
    for tensor in tensors:
        base = tensor._keras_history.operation.name  # noqa: SLF001 - tensors themselves have generated names
        count = seen[base] = seen.get(base, -1) + 1
        clean = _NOT_IN_TRITONS_NAMES.sub("_", base)
        clean = clean if clean[0].isalnum() or clean[0] == "_" else f"_{clean}"
        names.append(f"{clean}_{count}" if count else clean)
    return names


def _unique(name: str, taken: set[str]) -> str:
    new, number = name, 1
    while new in taken:
        number += 1
        new = f"{name}_{number}"
    taken.add(new)
    return new


def _arguments(model: keras.Model) -> list[str]:
    """Names of what ``call`` takes, its tensors in front."""
    parameters = inspect.signature(model.call).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in positional and p.name not in ("training", "mask")]
    return names or ["inputs"]


def _taken(model: keras.Model, given: Sequence[TensorSpec]) -> dict[str, Any]:
    """What a model is called with, by argument: structures of symbolic tensors."""
    first, *others = _arguments(model)
    if given:
        tensors = [
            keras.KerasTensor([None, *(None if dim < 0 else dim for dim in tensor.dims)], tensor.dtype.numpy.name)
            for tensor in given
        ]
        if 1 < len(tensors) <= 1 + len(others):
            return dict(zip([first, *others], tensors, strict=False))
        return {first: tensors[0] if len(tensors) == 1 else tensors}
    config = model.get_build_config() or {}
    shapes = {first: config["input_shape"]} if "input_shape" in config else config.get("shapes_dict")
    if not shapes:
        msg = (
            f"model {model.name} does not say what it takes: call it on one batch before saving it,"
            " or build it as a Sequential or functional model"
        )
        raise ConversionError(msg)
    return {
        name.removesuffix("_shape"): keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor([None, *shape[1:]], model.input_dtype), packed
        )
        for name, packed in shapes.items()
    }


def _with_inputs(label: str, packed: Any, inputs: dict[str, Any]) -> Any:  # noqa: ANN401 - any structure of tensors
    """The same structure of inputs named by the model's own words: Keras would number them as the process goes."""
    if isinstance(packed, dict):
        return {key: _with_inputs(str(key), part, inputs) for key, part in packed.items()}
    if isinstance(packed, list | tuple):
        return [_with_inputs(f"{label}_{number}", part, inputs) for number, part in enumerate(packed)]
    name = _unique(label, set(inputs))
    inputs[name] = keras.Input(batch_shape=packed.shape, dtype=packed.dtype, name=name)
    return inputs[name]


def _flat(label: str, packed: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - any structure of tensors
    """Tensors of a structure, named by their keys, else by the label and their number."""
    if isinstance(packed, dict):
        return [pair for key in sorted(packed) for pair in _flat(str(key), packed[key])]
    if isinstance(packed, list | tuple):
        return [pair for number, part in enumerate(packed) for pair in _flat(f"{label}_{number}", part)]
    return [(label, packed)]
