"""Finds what makes a model's answer depend on chance, or on the other rows of its batch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.tracing import failure

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANDOM = re.compile(r"Random|Rng|TruncatedNormal|Multinomial|Bernoulli")
_CALLED_IN_TRAINING = (
    "it is called with training=True: an answer would depend on chance, or on the rest of its batch: build the model"
    " without, load the same weights, and save it again"
)


def refuse_training(model: keras.Model) -> None:
    """Refuse layers that a functional model calls with ``training=True``.

    Such a model draws anew at each call, but Keras' ``predict`` overrules it: what
    Monte Carlo dropout is there for would be lost in silence.

    Raises:
        ConversionError: The layer's path.
    """
    for path in _called_in_training(model, ""):
        raise failure(model, path, _CALLED_IN_TRAINING)


def _called_in_training(layer: keras.layers.Layer, path: str) -> Iterator[str]:
    if isinstance(layer, keras.src.models.Functional):
        for _, nodes in sorted(layer._nodes_by_depth.items(), reverse=True):  # noqa: SLF001 - Keras has no public list of a model's calls
            for node in nodes:
                if node.arguments.kwargs.get("training") is True:
                    yield f"{path}{node.operation.name}"
    for inner in layer._flatten_layers(recursive=False, include_self=False):  # noqa: SLF001 - Keras has no public walk that enters wrappers and nested models
        yield from _called_in_training(inner, f"{path}{inner.name}/")


def drawn(operator: str) -> str | None:
    """Why an operator that draws random numbers is not exported; None if it draws none.

    Args:
        operator: TensorFlow's or ONNX' name of it.
    """
    if not _RANDOM.search(operator):
        return None
    return (
        f"it draws random numbers ({operator}) outside of training, too, and an answer would depend on chance: build"
        " the model so that it draws in training alone, load the same weights, and save it again"
    )
