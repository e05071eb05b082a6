"""LSTM, GRU and SimpleRNN without loops.

tf2onnx turns a masked LSTM, every GRU and every SimpleRNN into an ONNX ``Loop``,
several times slower. While a model is traced, the ``call`` of such a layer is
replaced by a stand-in, which a handler then turns into nodes with the weights of
the layer's cells: LSTM and GRU into the ONNX operators of these names, a
SimpleRNN over many steps or a free number of them into RNN. One over few steps
becomes plain nodes, and counts as a network without recurrent layers from then on.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from radserve.errors import ConversionError
from radserve_export.from_keras.recurrent.layers import recurrent_layers, why_not_native
from radserve_export.from_keras.recurrent.nodes import emit
from radserve_export.from_keras.recurrent.stand_in import StandIns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from radserve_export.from_keras._tensorflow import keras

__all__ = ["native_recurrent"]

Handlers = dict[str, tuple["Callable[..., None]", list[str]]]
_LOG = logging.getLogger("radserve_export")


@contextmanager
def native_recurrent(model: keras.Model) -> Iterator[Handlers]:
    """Replace the recurrent layers' ``call`` for the time of a tracing.

    Layers without a native form stay as they are, and the converter turns them
    into a loop, which is slower and just as right: a warning on the logger
    ``radserve_export`` names each, with its path in the model and why.

    Args:
        model: The model that will be traced, whether whole or a part of another;
            sub-models and custom layers are searched too.

    Yields:
        ``custom_op_handlers`` for tf2onnx.

    Raises:
        ConversionError: A layer is stateful: a server has no place for its state.
            While the model is traced: one draws random numbers.
    """
    replaced = []
    for path, layer in recurrent_layers(model):
        if layer.stateful:
            msg = (
                f"layer {path} cannot be exported: it is stateful, and would mix one request's sequence into the next:"
                " build it with stateful=False, load the same weights, and save the model again"
            )
            raise ConversionError(msg)
        reason = why_not_native(layer)
        if reason is None:
            replaced.append((path, layer))
        else:
            _LOG.warning("layer %s has no native ONNX operator (%s): it becomes a slower loop", path, reason)
    stand_ins = StandIns()
    try:
        for path, layer in replaced:
            layer.call = stand_ins.call_of(layer, path)
        yield {"PyFunc": (partial(emit, stand_ins.of), [])}
    finally:
        for _, layer in replaced:
            if "call" in vars(layer):
                del layer.call
