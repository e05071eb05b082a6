"""Text generators: the encoder and the decoder inside a trained model, and how they go together.

A model file for ``task: text_generation`` is the functional model that was
trained, from source ids and target ids to logits. Two of its layers are
functional models themselves, and are all that is served:

- ``encoder`` takes source ids ``(batch, source tokens)``, padded with 0 on the
  right, and gives a dict of tensors, whatever the decoder needs of the source
  (such as ``memory``, ``mask``) or begins with (such as ``state_h``, ``state_c``);
- ``decoder`` takes a dict: ``target_ids`` ``(batch, target tokens)``, and all that the
  encoder gives, under the same keys. It gives a dict: ``logits`` ``(batch, target
  tokens, vocabulary)``, and under the keys of the states what they are behind the
  last target token. What it does not give anew stays as it is.

In training the decoder reads whole texts (the start token in front), and its
new states are not used; served, it reads one token at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import keras, tf
from radserve_export.graphs import NETWORK_INPUT
from radserve_export.graphs.decoding import decode, step_of
from radserve_export.graphs.generation import LOGITS, NEXT, TARGET_IDS, generation_graph
from radserve_export.network import DECODER, ENCODER, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Decoding


class Piece(NamedTuple):
    """What is converted by itself.

    Attributes:
        model: The encoder or the decoder.
        inputs: What it takes, by the names in its graph.
        outputs: Names that its outputs have there.
        keys: Those of its dict of inputs; empty if it takes a tensor.
        given: Those of its dict of outputs.
    """

    model: keras.Model
    inputs: dict[str, tf.TensorSpec]
    outputs: list[str]
    keys: list[str]
    given: list[str]

    def call(self, arrays: Sequence[Any]) -> list[Any]:
        """Call it with a flat list of tensors, and give one."""
        packed = dict(zip(self.keys, arrays, strict=True)) if self.keys else arrays[0]
        answers = self.model(packed, training=False)
        return [answers[key] for key in self.given]


def pieces_of(model: keras.Model) -> dict[str, Piece]:
    """The encoder and the decoder of a trained generator.

    Raises:
        ConversionError: The model is not built as this module says.
    """
    encoder, decoder = (_inner(model, name) for name in (ENCODER, DECODER))
    memory, taken = _keys(encoder, "output"), _keys(decoder, "input")
    given = _keys(decoder, "output")
    if len(encoder.inputs) != 1 or TARGET_IDS not in taken or LOGITS not in given:
        msg = (
            f"model {model.name}: the encoder must take source ids alone, and the decoder a dict with {TARGET_IDS}"
            f" and give one with {LOGITS}"
        )
        raise ConversionError(msg)
    source = encoder.inputs[0]
    kinds = {key: decoder.input[key] for key in taken}
    specs = {key: tf.TensorSpec([None, *kinds[key].shape[1:]], kinds[key].dtype) for key in taken}
    specs[TARGET_IDS] = tf.TensorSpec([None, 1], kinds[TARGET_IDS].dtype)
    return {
        ENCODER: Piece(
            model=encoder,
            inputs={NETWORK_INPUT: tf.TensorSpec([None, *source.shape[1:]], source.dtype)},
            outputs=memory,
            keys=_keys(encoder, "input") if isinstance(encoder.input, dict) else [],
            given=memory,
        ),
        DECODER: Piece(
            model=decoder,
            inputs=specs,
            outputs=[key if key == LOGITS else f"{key}{NEXT}" for key in given],
            keys=taken,
            given=given,
        ),
    }


def _inner(model: keras.Model, name: str) -> keras.Model:
    found = [layer for layer in model.layers if layer.name == name and getattr(layer, "inputs", None)]
    if not found:
        msg = f"model {model.name} has no layer {name} that is a functional model: a text generator is made of two"
        raise ConversionError(msg)
    return found[0]


def _keys(model: keras.Model, side: str) -> list[str]:
    structure = getattr(model, side)
    if not isinstance(structure, dict):
        msg = f"model {model.name}: give its {side}s as a dict, so that encoder and decoder fit by name"
        raise ConversionError(msg)
    return sorted(structure)


def join(encoder: Part, decoder: Part, decoding: Decoding) -> Part:
    """The whole generator.

    Args:
        encoder: The converted encoder.
        decoder: The converted decoder.
        decoding: How tokens are chosen.

    Returns:
        The graph that writes whole texts, and the same search around Keras' own
        encoder and decoder; beside the graph's outputs it gives MARGIN.

    Raises:
        ConversionError: The two do not fit.
    """
    step = step_of(decoder)

    def run(feeds: Arrays) -> dict[str, NDArray[np.generic]]:
        return decode(step, encoder.reference(feeds), decoding)

    return Part(graph=generation_graph(encoder.graph, decoder.graph, decoding), reference=run)
