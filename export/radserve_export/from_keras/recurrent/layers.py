"""Which layers of a model are recurrent, and which of them ONNX has an operator for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.recurrent.operators import ACTIVATIONS, activations_of, cells_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAYERS = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN, keras.layers.RNN)
_CELLS = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)


def recurrent_layers(model: keras.Model) -> Iterator[tuple[str, keras.layers.RNN]]:
    """All recurrent layers of a model, each once, with its path in the model: ``outer/inner/layer``."""
    seen: set[int] = set()
    pending = [("", model)]
    while pending:
        path, layer = pending.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, keras.layers.RNN):
            yield path, layer
        # Keras' own walk, _flatten_layers(), enters what it finds too, but says nothing of where it was.
        children = layer._flatten_layers(include_self=False, recursive=False)  # noqa: SLF001 - there is no public one
        pending.extend((f"{path}/{child.name}".lstrip("/"), child) for child in reversed(children))


def why_not_native(layer: keras.layers.RNN) -> str | None:
    """What of a layer no ONNX operator does; None if there is one for all of it."""
    if type(layer) not in _LAYERS:
        return f"{type(layer).__name__} is not LSTM, GRU, SimpleRNN or RNN"
    for cell in cells_of(layer):
        if type(cell) not in _CELLS:
            return f"its cell is a {type(cell).__name__}"
        for activation in activations_of(cell):
            if activation not in ACTIVATIONS:
                return f"its activation {getattr(activation, '__name__', type(activation).__name__)}"
    # A layer's policy and its cells' may differ.
    dtypes = {layer.compute_dtype, *(cell.compute_dtype for cell in cells_of(layer))}
    return None if dtypes == {"float32"} else f"it computes in {', '.join(sorted(dtypes - {'float32'}))}"
