"""Small trained-looking text generators in Keras, and a spec to export one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from radserve_export.from_keras._tensorflow import keras

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "END",
    "MAX_NEW_TOKENS",
    "MAX_TOKENS",
    "START",
    "generation_spec",
    "generator",
    "keras",
    "layers",
    "tokenizer",
]

layers = keras.layers
UNITS = 8
MAX_TOKENS, MAX_NEW_TOKENS = 12, 10
START, END = "[START]", "[END]"


def tokenizer(*texts: str) -> Tokenizer:
    """Byte pairs: any text has tokens and comes back exactly."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["[PAD]", START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts or ["a small effusion", "no effusion", "胸腔积液"] * 3, trainer)
    return made


def generator(kind: str = "lstm", vocabulary: int = 30, *, end_bias: float = 0.0, seed: int = 0) -> keras.Model:
    """An encoder-decoder of random weights.

    Args:
        kind: ``lstm``: explicit mask, dot-product attention, two states. ``gru``: masking
            embeddings, additive attention, one state. ``plain``: no attention, the source
            in the state alone.
        vocabulary: Number of words.
        end_bias: Added to the end token's logit.
        seed: Of the weights.
    """
    source = keras.Input((None,), dtype="int32", name="source_ids")
    target = keras.Input((None,), dtype="int32", name="target_ids")
    encoder, decoder = {"lstm": _lstm, "gru": _gru, "plain": _plain}[kind](vocabulary)
    # Keras warns where a mask goes into a layer that does not take it.
    given = {key: keras.ops.copy(value) for key, value in encoder(source).items()}
    logits = decoder({"target_ids": target, **given})["logits"]
    model = keras.Model([source, target], logits, name=f"{kind}_generator")
    rng = np.random.default_rng(seed)
    for weight in model.weights:  # large ones: the texts differ, and no two words are equally probable
        spread = 1.5 if "embedding" in weight.path else 2.5 / np.sqrt(weight.shape[0])
        weight.assign(rng.normal(0, spread, weight.shape))
    bias = model.get_layer("decoder").get_layer("words").bias
    values = np.asarray(bias)
    values[2] += end_bias
    bias.assign(values)
    return model


def _lstm(vocabulary: int) -> tuple[keras.Model, keras.Model]:
    source = keras.Input((None,), dtype="int32")
    mask = keras.ops.not_equal(source, 0)
    reader = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True, return_state=True))
    told, *states = reader(layers.Embedding(vocabulary, UNITS)(source), mask=mask)
    state_h, state_c = (layers.Concatenate()(states[place::2]) for place in (0, 1))
    encoder = keras.Model(
        source, {"memory": told, "mask": mask, "state_h": state_h, "state_c": state_c}, name="encoder"
    )
    taken = _inputs(memory=(None, 2 * UNITS), state_h=(2 * UNITS,), state_c=(2 * UNITS,))
    taken["mask"] = keras.Input((None,), dtype="bool", name="mask")
    writer = layers.LSTM(2 * UNITS, return_sequences=True, return_state=True)
    words = layers.Embedding(vocabulary, UNITS)(taken["target_ids"])
    hidden, state_h, state_c = writer(words, initial_state=[taken["state_h"], taken["state_c"]])
    seen = layers.Attention()([hidden, taken["memory"]], mask=[None, taken["mask"]])
    logits = layers.Dense(vocabulary, name="words")(layers.Concatenate()([hidden, seen]))
    return encoder, keras.Model(taken, {"logits": logits, "state_h": state_h, "state_c": state_c}, name="decoder")


def _gru(vocabulary: int) -> tuple[keras.Model, keras.Model]:
    source = keras.Input((None,), dtype="int32")
    words = layers.Embedding(vocabulary, UNITS, mask_zero=True)(source)
    told, state = layers.GRU(UNITS, return_sequences=True, return_state=True)(words)
    mask = keras.ops.cast(keras.ops.not_equal(source, 0), "float32")
    encoder = keras.Model(source, {"annotations": told, "is_word": mask, "state": state}, name="encoder")
    taken = _inputs(annotations=(None, UNITS), is_word=(None,), state=(UNITS,))
    words = layers.Embedding(vocabulary, UNITS)(taken["target_ids"])
    hidden, state = layers.GRU(UNITS, return_sequences=True, return_state=True)(words, initial_state=taken["state"])
    valid = keras.ops.cast(taken["is_word"], "bool")
    seen = layers.AdditiveAttention()([hidden, taken["annotations"]], mask=[None, valid])
    logits = layers.Dense(vocabulary, name="words")(layers.Concatenate()([hidden, seen]))
    return encoder, keras.Model(taken, {"logits": logits, "state": state}, name="decoder")


def _plain(vocabulary: int) -> tuple[keras.Model, keras.Model]:
    source = keras.Input((MAX_TOKENS,), dtype="float32")
    state = layers.LSTM(UNITS)(layers.Embedding(vocabulary, UNITS, mask_zero=True)(source))
    encoder = keras.Model(source, {"state": state}, name="encoder")
    taken = _inputs(state=(UNITS,))
    words = layers.Embedding(vocabulary, UNITS)(taken["target_ids"])
    hidden, state = layers.SimpleRNN(UNITS, return_sequences=True, return_state=True)(
        words, initial_state=taken["state"]
    )
    logits = layers.Dense(vocabulary, name="words")(hidden)
    return encoder, keras.Model(taken, {"logits": logits, "state": state}, name="decoder")


def _inputs(**shapes: tuple[int | None, ...]) -> dict[str, Any]:
    given = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    return {"target_ids": keras.Input((None,), dtype="int32", name="target_ids"), **given}


def generation_spec(folder: Path, name: str = "writer", *, model: keras.Model | None = None, **changes: Any) -> Path:
    """Write a spec, its model and its tokenizer."""
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"))
    (model or generator(vocabulary=made.get_vocab_size())).save(folder / f"{name}.keras")
    spec = {
        "name": name,
        "task": "text_generation",
        "model": f"{name}.keras",
        "tokenizer": "tokenizer.json",
        "input": {"kind": "text", "languages": ["en", "zh"], "max_tokens": MAX_TOKENS},
        "generation": {"start": START, "end": END, "max_tokens": MAX_NEW_TOKENS},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec | changes))
    return path
