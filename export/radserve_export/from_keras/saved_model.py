"""A TensorFlow SavedModel as a Keras model: its serving signature, with names that the signature gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import keras, tf
from radserve_export.from_keras.signature import model_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SIGNATURE = "serving_default"


class _Signature(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Calls a SavedModel's signature; takes and gives tensors by name."""

    def __init__(self, restored: Any, function: Callable[..., dict[str, Any]]) -> None:  # noqa: ANN401 - TensorFlow is untyped
        super().__init__(name=_SIGNATURE, trainable=False, autocast=False)
        self._restored = restored  # it owns the variables that the function reads
        self._function = function

    def call(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run the signature."""
        return self._function(**feeds)


def as_keras_model(folder: Path) -> keras.Model:
    """Make a functional model around a SavedModel's serving signature.

    Nothing is looked at here: whoever calls this has checked the folder, or trusts it.

    Args:
        folder: What ``model.export(folder)`` or ``tf.saved_model.save`` wrote.

    Returns:
        A model whose inputs and outputs are named as the signature names them.
        An output with the name of an input gets ``_output`` behind it.

    Raises:
        ConversionError: TensorFlow cannot read it, or it has no such signature.
    """
    try:
        restored = tf.saved_model.load(str(folder))
        function = restored.signatures[_SIGNATURE]
    except KeyError as error:
        there = ", ".join(sorted(restored.signatures)) or "none"
        msg = f"{folder.name} has no signature {_SIGNATURE}, only {there}: save it with model.export('{folder.name}')"
        raise ConversionError(msg) from error
    # TensorFlow raises whatever its readers do on a file that they cannot read.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        msg = f"TensorFlow {tf.__version__} cannot load {folder.name}: {first}"
        raise ConversionError(msg) from error
    _, taken = function.structured_input_signature
    inputs = {name: _input(name, spec, folder) for name, spec in taken.items()}
    answers = _Signature(restored, function)(inputs)
    outputs = {name: answers[name] for name in function.structured_outputs}
    return model_of(inputs, outputs, name=folder.name)


def _input(name: str, spec: Any, folder: Path) -> Any:  # noqa: ANN401 - TensorFlow is untyped
    if spec.shape.rank is None or not spec.shape.rank:
        msg = f"{folder.name}: input {name} has no batch axis: save the model with an input signature of known rank"
        raise ConversionError(msg)
    batch, *shape = spec.shape.as_list()
    return keras.Input(shape, batch_size=batch, dtype=spec.dtype.name, name=name)
