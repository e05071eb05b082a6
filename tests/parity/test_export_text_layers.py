"""Text layers become a tokenizer: same words, same ids, same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.keras_models import keras, layers
from tokenizers import Tokenizer

from radserve.errors import ConversionError
from radserve_export.from_keras import text as text_module
from radserve_export.from_keras._tensorflow import tf
from radserve_export.from_keras.text import take_out_text_layer

TEXTS = [
    "No acute disease. Éclair",
    "large LEFT pneumothorax, 12 mm",
    "漢字 test's word",
    "no no no [UNK] [PAD]",
    "never seen before",
    "x",
]

VECTORIZATIONS: list[dict[str, Any]] = [
    {},
    {"standardize": None},
    {"standardize": "lower"},
    {"standardize": "strip_punctuation"},
    {"split": "character"},
    {"split": None},
    {"output_sequence_length": 3},
    {"output_sequence_length": 40, "split": "character"},
    {"max_tokens": 6},
    {"output_mode": "multi_hot"},
    {"output_mode": "count"},
    {"output_mode": "tf_idf"},
    {"output_mode": "multi_hot", "max_tokens": 60, "pad_to_max_tokens": True},
]


FIXED = {"output_sequence_length": 16}


def vectorization(**options: Any) -> keras.layers.Layer:
    layer = layers.TextVectorization(**options, name="words")
    layer.adapt(TEXTS[:4])
    return layer


def classifier(layer: keras.layers.Layer) -> keras.Model:
    taken = keras.Input((1,), dtype="string")
    x = layer(taken)
    if layer.get_config()["output_mode"] == "int":
        x = layers.GlobalAveragePooling1D()(layers.Embedding(200, 4, mask_zero=True)(x))
    return keras.Model(taken, layers.Dense(3)(x))


def token_ids(tokenizer: bytes, texts: list[str], length: int | None) -> np.ndarray[Any, Any]:
    found = [encoding.ids for encoding in Tokenizer.from_str(tokenizer.decode()).encode_batch(texts)]
    ids = np.zeros((len(texts), length or max(map(len, found))), np.int64)
    for row, places in zip(ids, found, strict=True):
        row[: len(places)] = places[: len(row)]
    return ids


@pytest.mark.parametrize("options", VECTORIZATIONS, ids=str)
def test_the_rest_of_the_model_answers_token_ids_as_the_whole_answers_text(options: dict[str, Any]) -> None:
    model = classifier(vectorization(**options))
    taken_out = take_out_text_layer(model)
    assert taken_out is not None
    ids = token_ids(taken_out.tokenizer, TEXTS, options.get("output_sequence_length"))
    answers = taken_out.model(ids).numpy()
    np.testing.assert_allclose(answers, model(tf.constant(TEXTS)[:, None]).numpy(), atol=1e-6)
    assert np.ptp(answers, axis=0).max() > 1e-3, "the texts must be told apart"


@pytest.mark.parametrize("mask_token", [None, ""])
def test_a_string_lookup_takes_the_whole_text_as_one_word(mask_token: str | None) -> None:
    taken = keras.Input((1,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["CT", "head CT", "US"], mask_token=mask_token)
    model = keras.Model(taken, layers.Flatten()(layers.Embedding(9, 4)(lookup(taken))))
    taken_out = take_out_text_layer(model)
    assert taken_out is not None
    texts = ["CT", "head CT", "US", "head  CT"]
    found = taken_out.model(token_ids(taken_out.tokenizer, texts, 1)).numpy()
    np.testing.assert_allclose(found, model(tf.constant(texts)[:, None]).numpy())


def test_a_model_that_takes_no_text_is_left_alone() -> None:
    assert take_out_text_layer(keras.Sequential([layers.Input((3,)), layers.Dense(2)])) is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ngrams": 2}, "n-grams"),
        ({"standardize": lambda text: text}, "standardize is a function"),
        ({"split": lambda text: text}, "split is a function"),
        ({"ragged": True}, "ragged"),
        ({"encoding": "latin-1"}, "UTF-8"),
    ],
)
def test_what_no_tokenizer_can_do_is_refused_by_the_layers_name(options: dict[str, Any], why: str) -> None:
    layer = layers.TextVectorization(vocabulary=["a", "b"], **options, name="words")
    taken = keras.Input((1,), dtype="string")
    with pytest.raises(ConversionError, match=rf"layer words \(TextVectorization\) .*{why}"):
        take_out_text_layer(keras.Model(taken, layer(taken)))


def test_a_word_as_mask_is_refused() -> None:
    taken = keras.Input((1,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["CT"], mask_token="none", name="words")  # noqa: S106 - a word
    with pytest.raises(ConversionError, match="mask_token"):
        take_out_text_layer(keras.Model(taken, lookup(taken)))


@pytest.mark.parametrize(("options", "mask", "refused"), [({}, False, True), ({}, True, False), (FIXED, False, False)])
def test_a_model_that_padding_changes_is_refused(options: dict[str, Any], *, mask: bool, refused: bool) -> None:
    layer = vectorization(**options)
    taken = keras.Input((1,), dtype="string")
    x = layers.Embedding(200, 4, mask_zero=mask, embeddings_initializer="ones")(layer(taken))
    model = keras.Model(taken, layers.LSTM(3)(x))
    if refused:
        with pytest.raises(ConversionError, match="output_sequence_length=16"):
            take_out_text_layer(model, 16)
    else:
        assert take_out_text_layer(model, 16) is not None


def test_text_that_two_layers_read_is_refused() -> None:
    taken = keras.Input((1,), dtype="string")
    one, other = (layers.StringLookup(vocabulary=["a"], name=name)(taken) for name in ("one", "other"))
    with pytest.raises(ConversionError, match=r"one \(StringLookup\), other \(StringLookup\)"):
        take_out_text_layer(keras.Model(taken, [one, other]))


def test_text_beside_another_input_is_refused() -> None:
    text, number = keras.Input((1,), dtype="string"), keras.Input((1,))
    with pytest.raises(ConversionError, match="one text input"):
        take_out_text_layer(keras.Model([text, number], [vectorization()(text), number]))


def test_a_tokenizer_that_splits_in_another_way_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "_SPACE", r"[ \t]+")
    with pytest.raises(ConversionError, match=r"splits a text .* in another way"):
        take_out_text_layer(classifier(vectorization()))
