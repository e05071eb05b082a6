"""Text layers taken out of a model: what ``TextVectorization`` does becomes the tokenize step's work.

ONNX has no strings worth the name. So the layer's vocabulary, standardisation
and split become a ``tokenizer.json``, and the rest of the model takes token
ids. Before that is believed, both are compared on texts made to differ.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import keras, tf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Neither can be a word: whitespace is split at, or the whole text is one word.
_PADDING, _UNKNOWN = " [PAD] ", " [UNK] "
_SPACE = r"[ \t\n\v\f\r]+"  # what TensorFlow splits at: ASCII's whitespace, not Unicode's
_PUNCTUATION = r"""[!"#$%&()\*\+,\-\./:;<=>?@\[\\\]\^_`{|}~']"""
_LAYERS = (keras.layers.TextVectorization, keras.layers.StringLookup)
_PROBES, _PROBE_WORDS = 200, 40
_ANSWERED, _CLOSE = 24, 1e-4
_ALPHABET = "aZ éÉß漢字.,;-_'\"\t\n\r\v\f\u00a0\u3000\u200b0😀[]"


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """A model without its text layer.

    Attributes:
        model: Takes token ids, right-padded with 0.
        tokenizer: ``tokenizer.json`` that makes them.
    """

    model: keras.Model
    tokenizer: bytes


def take_out_text_layer(model: keras.Model, max_tokens: int | None = None) -> TextModel | None:
    """Split a model behind the text layer that its one input feeds.

    Args:
        model: A Sequential or functional model.
        max_tokens: Length that served token ids are padded to; None leaves unchecked
            whether the model answers padded ids as it answers text.

    Returns:
        None where the model takes no text.

    Raises:
        ConversionError: It takes text, but a layer does what no tokenizer can.
    """
    if not any(tensor.dtype == "string" for tensor in model.inputs):
        return None
    if len(model.inputs) != 1:
        msg = f"model {model.name}: text beside other inputs cannot be served: give it one text input"
        raise ConversionError(msg)
    layer = _text_layer(model)
    described, shift = _described(layer)
    content = json.dumps(described, ensure_ascii=False, indent=1).encode() + b"\n"
    _compare(layer, content, shift)
    found = TextModel(model=_rest(model, layer), tokenizer=content)
    if max_tokens is not None:
        _compare_answers(model, found, layer, max_tokens)
    return found


def _text_layer(model: keras.Model) -> keras.layers.Layer:
    history = model.inputs[0]._keras_history  # noqa: SLF001 - what reads a tensor is not public
    readers = [node.operation for node in history.operation._outbound_nodes]  # noqa: SLF001 - as above
    inside = [layer for layer in model.layers if any(layer is reader for reader in readers)]
    for layer in inside:
        if isinstance(layer, _LAYERS) and len(inside) == 1:
            return layer
    names = ", ".join(f"{reader.name} ({type(reader).__name__})" for reader in inside)
    msg = f"model {model.name}: its text is read by {names}: a TextVectorization or StringLookup alone can be served"
    raise ConversionError(msg)


def _refuse(layer: keras.layers.Layer, why: str) -> ConversionError:
    return ConversionError(f"layer {layer.name} ({type(layer).__name__}) cannot become a tokenizer: {why}")


def _described(layer: keras.layers.Layer) -> tuple[dict[str, Any], int]:
    """``tokenizer.json`` of a layer, and how much its ids are above the layer's own."""
    config = layer.get_config()
    is_lookup = isinstance(layer, keras.layers.StringLookup)
    if config.get("ragged") or config.get("sparse"):
        raise _refuse(layer, "ragged and sparse outputs cannot be served")
    if config.get("ngrams"):
        raise _refuse(layer, "it makes n-grams")
    if config.get("invert") or config.get("num_oov_indices", 1) != 1:
        raise _refuse(layer, "it must have one index for unknown words, and give indices")
    if config.get("encoding", "utf-8") != "utf-8":
        raise _refuse(layer, "its encoding is not UTF-8")
    if config.get("mask_token") not in (None, ""):
        raise _refuse(layer, "its mask_token is a word: leave it out")
    standardize, split = (None, None) if is_lookup else (config["standardize"], config["split"])
    if standardize not in (None, "lower", "strip_punctuation", "lower_and_strip_punctuation"):
        raise _refuse(layer, "its standardize is a function of its own")
    if split not in (None, "whitespace", "character"):
        raise _refuse(layer, "its split is a function of its own")
    padded = config["output_mode"] == "int" and (not is_lookup or config["mask_token"] is not None)
    words = layer.get_vocabulary(include_special_tokens=False)
    shift = 0 if padded else 1
    vocabulary = {_PADDING: 0, _UNKNOWN: 1} | {str(word): place for place, word in enumerate(words, start=2)}
    normalizers = _lowered(standardize) + _stripped(standardize)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": _splitter(split),
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": _UNKNOWN},
    }, shift


def _lowered(standardize: str | None) -> list[dict[str, Any]]:
    """One replacement a letter: TensorFlow lowers ASCII alone, where the library's Lowercase knows all of Unicode."""
    if standardize not in ("lower", "lower_and_strip_punctuation"):
        return []
    capitals = map(chr, range(ord("A"), ord("Z") + 1))
    return [{"type": "Replace", "pattern": {"String": letter}, "content": letter.lower()} for letter in capitals]


def _stripped(standardize: str | None) -> list[dict[str, Any]]:
    if standardize not in ("strip_punctuation", "lower_and_strip_punctuation"):
        return []
    return [{"type": "Replace", "pattern": {"Regex": _PUNCTUATION}, "content": ""}]


def _splitter(split: str | None) -> dict[str, Any] | None:
    if split is None:
        return None
    pattern, behavior = (_SPACE, "Removed") if split == "whitespace" else (r"(?m:.)", "Isolated")
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def _compare(layer: keras.layers.Layer, content: bytes, shift: int) -> None:
    """The tokenizer must give what the layer gives, on its own words and on what is hard to split."""
    texts = _probes(layer.get_vocabulary(include_special_tokens=False))
    tokenizer = Tokenizer.from_str(content.decode())
    lookup = layer if isinstance(layer, keras.layers.StringLookup) else layer._lookup_layer  # noqa: SLF001 - the split words are not public
    prepared = tf.constant(texts) if lookup is layer else layer._preprocess(tf.constant(texts))  # noqa: SLF001 - as above
    ragged = prepared if isinstance(prepared, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(prepared[:, tf.newaxis])
    places = np.asarray(lookup._lookup_dense(ragged.flat_values)) + shift  # noqa: SLF001 - whatever the output mode
    rows = np.split(places, np.asarray(ragged.row_splits)[1:-1])
    for text, encoding, expected in zip(texts, tokenizer.encode_batch(texts), rows, strict=True):
        if encoding.ids != expected.tolist():
            # Not the text: a vocabulary learnt from reports may hold names.
            kind = "a text of its own words" if text.isascii() else "a text with other characters than ASCII's"
            raise _refuse(layer, f"the tokenizer made of it splits {kind} of {len(text)} characters in another way")


def _compare_answers(model: keras.Model, found: TextModel, layer: keras.layers.Layer, max_tokens: int) -> None:
    """Keras pads to the longest text of a call, the server always to the same length: both must answer alike."""
    if found.model.inputs[0].shape[1] not in (None, max_tokens):
        return  # the spec's input does not fit, which is told elsewhere
    tokenizer = Tokenizer.from_str(found.tokenizer.decode())
    for text in _probes(layer.get_vocabulary(include_special_tokens=False))[:_ANSWERED]:
        ids = tokenizer.encode(text).ids
        if not 0 < len(ids) <= max_tokens:
            continue
        padded = np.zeros((1, max_tokens), np.int64)
        padded[0, : len(ids)] = ids
        answers = [keras.tree.flatten(answer) for answer in (model(tf.constant([[text]])), found.model(padded))]
        if not all(np.allclose(whole, rest, rtol=_CLOSE, atol=_CLOSE) for whole, rest in zip(*answers, strict=True)):
            raise _refuse(
                layer,
                f"the model answers a short text otherwise when it is padded to max_tokens ({max_tokens}):"
                f" give the layer output_sequence_length={max_tokens}, or the Embedding mask_zero=True",
            )


def _probes(words: Sequence[str]) -> list[str]:
    rng = np.random.default_rng(0)
    known = [str(word) for word in words[:2000]] or ["word"]
    texts = ["word", " two  words ", "[PAD] [UNK]", "A\nB\tC", *known[:5]]
    for _ in range(_PROBES):
        parts = [
            rng.choice(known) if rng.random() < 0.5 else "".join(rng.choice(list(_ALPHABET), rng.integers(1, 6)))  # noqa: PLR2004 - half of each
            for _ in range(rng.integers(1, _PROBE_WORDS))
        ]
        texts.append("".join(part + rng.choice([" ", "  ", "\n", ", ", "\u00a0", ""]) for part in parts))
    return texts


def _rest(model: keras.Model, layer: keras.layers.Layer) -> keras.Model:
    config = layer.get_config()
    if config["output_mode"] == "int":
        taken = keras.Input(layer.output.shape[1:], dtype="int64", name=f"{layer.name}_ids")
        shifted = taken if not _described(layer)[1] else _Shift(name=f"{layer.name}_shift")(taken)
    else:
        taken = keras.Input((None,), dtype="int64", name=f"{layer.name}_ids")
        shifted = _BagOfWords(_weights(layer, config), config["output_mode"], name=layer.name)(taken)
    # A model that starts behind the layer, called on what replaces it. A Sequential model's layers may have
    # been called more than once: the tensor wanted is the one inside the model.
    graph = getattr(model, "_functional", None) or model
    nodes = (node for level in graph._nodes_by_depth.values() for node in level)  # noqa: SLF001 - as above
    (made,) = next(node.outputs for node in nodes if node.operation is layer)
    behind = keras.Model(made, graph.outputs, name=model.name)
    if behind.inputs[0].shape != shifted.shape:  # Keras states (batch, 1, words) of a bag, and gives (batch, words)
        start = keras.Input(shifted.shape[1:], dtype=shifted.dtype)
        behind = keras.models.clone_model(behind, input_tensors=start, clone_function=lambda layer: layer)
    return keras.Model(taken, behind(shifted), name=model.name)


def _weights(layer: keras.layers.Layer, config: dict[str, Any]) -> NDArray[np.float32]:
    size = int(layer.output.shape[-1])
    lookup = layer if isinstance(layer, keras.layers.StringLookup) else layer._lookup_layer  # noqa: SLF001 - as above
    weights = lookup.idf_weights_const if config["output_mode"] == "tf_idf" else np.ones(size)
    return np.asarray(weights, np.float32)


class _Shift(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Token ids to the indices of a layer that has no padding: padding, which it never met, becomes unknown."""

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """One less, not below 0."""
        return tf.maximum(ids - 1, 0)


class _BagOfWords(keras.layers.Layer):  # type: ignore[misc]  # as above
    """Token ids to how often each word is there: what the layer's other output modes give."""

    def __init__(self, weights: NDArray[np.float32], mode: str, *, name: str) -> None:
        super().__init__(name=name)
        self._weights = weights
        self._mode = mode

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Counts, or whether there is one, weighted; padding counts for nothing."""
        size = len(self._weights)
        hot = tf.one_hot(ids - 1, size, dtype=tf.float32)
        counts = tf.reduce_max(hot, axis=1) if self._mode == "multi_hot" else tf.reduce_sum(hot, axis=1)
        return counts * self._weights
