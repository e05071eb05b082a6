"""Train the report triage model, tokenizer included, on generated reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFKC, BertNormalizer
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer, Digits
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.trainers import WordLevelTrainer

from radserve.contracts import TextInput
from radserve.errors import SpecError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from radserve_export.from_keras.training import Dataset, Progress
    from radserve_export.spec import Spec
    from radserve_export.spec_data import Generated

MAX_VOCABULARY = 8000
_PAD, _UNKNOWN = "[PAD]", "[UNK]"
_PAD_ID, _UNKNOWN_ID = 0, 1
# Share of the reports, shortest first, in each epoch.
_CURRICULUM = (0.4, 0.4, 0.4, 0.7, 0.7, 1.0, 1.0, 1.0)
_BATCH = 128
_LEARNING_RATE = 6e-3
_CLIP_NORM = 1.0
_UNKNOWN_RATE = 0.02
_EMPTY_SHARE = 0.005


def build_tokenizer(spec: Spec) -> Tokenizer:
    """Train the tokenizer on the reports that ``spec.training`` generates.

    Words in lower case without accents, each Chinese character and each digit by
    itself; full-width forms count as their usual ones (Unicode NFKC). What was
    not in the training reports becomes ``[UNK]``. Token 0 is ``[PAD]``; the
    tokenizer itself neither pads nor truncates, and an empty text has no tokens.

    Args:
        spec: The export spec; it must have ``training``.

    Returns:
        The tokenizer: ``save(path)`` writes the same bytes for the same spec.

    Raises:
        SpecError: The spec has no training block or names no such generator.
    """
    texts, _ = _reports(_training(spec))
    tokenizer = Tokenizer(WordLevel(unk_token=_UNKNOWN))
    tokenizer.normalizer = Normalizers([NFKC(), BertNormalizer(lowercase=True, handle_chinese_chars=True)])
    tokenizer.pre_tokenizer = PreTokenizers([BertPreTokenizer(), Digits(individual_digits=True)])
    trainer = WordLevelTrainer(vocab_size=MAX_VOCABULARY, special_tokens=[_PAD, _UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> NDArray[np.int32]:
    """Token ids as the served tokenize step gives them.

    Args:
        tokenizer: The model's tokenizer.
        texts: Reports.
        max_tokens: Width of the result; what is longer is cut.

    Returns:
        Ids ``(len(texts), max_tokens)`` int32, padded with 0 on the right.
    """
    token_ids = np.full((len(texts), max_tokens), _PAD_ID, np.int32)
    for row, encoding in zip(token_ids, tokenizer.encode_batch(list(texts)), strict=True):
        ids = encoding.ids[:max_tokens]
        row[: len(ids)] = ids
    return token_ids


def build_network(vocabulary: int, tokens: int | None) -> keras.Model:
    """The network, untrained.

    Args:
        vocabulary: Number of token ids.
        tokens: Length of the input; None leaves it free.

    Returns:
        From token ids ``(n, tokens)`` int32, padded with 0 on the right, to
        probabilities ``(n, 1)`` float32. Padding does not change the answer.
    """
    layers = keras.layers
    inputs = keras.Input((tokens,), dtype="int32", name="token_ids")
    embedded = layers.Embedding(vocabulary, 128, mask_zero=True)(inputs)
    hidden = layers.LSTM(64, activation="relu")(embedded)
    hidden = layers.Dense(64, activation="relu")(hidden)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="probability")(hidden), name="report_triage")


def train(spec: Spec, data: Dataset | None, progress: Progress) -> keras.Model:
    """Train on the reports that ``spec.training`` generates, from set seeds.

    Args:
        spec: The export spec; its tokenizer is what `build_tokenizer` gives.
        data: Not supported: must be None.
        progress: Told of each epoch.

    Returns:
        The trained model, input ``(n, max_tokens)`` int32, without optimizer.

    Raises:
        SpecError: Own data were given, or the spec is not one of a text model to train.
    """
    if data is not None:
        msg = f"{spec.name} trains on generated reports only: leave the data option out"
        raise SpecError(msg)
    if not isinstance(spec.input, TextInput):
        msg = f"{spec.name} needs an input of kind text: see export/specs/report_triage.yaml"
        raise SpecError(msg)
    training = _training(spec)
    keras.utils.set_random_seed(training.seed)
    tokenizer = build_tokenizer(spec)
    texts, y = _reports(training)
    # A text without a single token says nothing critical: the served model must not guess.
    empty = int(_EMPTY_SHARE * len(texts))
    x = encode(tokenizer, [*texts, *[""] * empty], spec.input.max_tokens)
    y = np.append(y, np.zeros(empty, np.float32))
    # Trained on batches cut to their longest report, which is faster; served on the full width.
    network = build_network(tokenizer.get_vocab_size(), None)
    batches = _batches(x, np.random.default_rng(training.seed))
    schedule = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, len(batches))
    network.compile(keras.optimizers.Adam(schedule, clipnorm=_CLIP_NORM), "binary_crossentropy", jit_compile=False)
    for done, (rows, tokens) in enumerate(batches, 1):
        network.train_on_batch(tokens, y[rows, None])
        progress(f"training {spec.name}", done, len(batches))
    served = build_network(tokenizer.get_vocab_size(), spec.input.max_tokens)
    served.set_weights(network.get_weights())
    return served


def _training(spec: Spec) -> Generated:
    if spec.training is None:
        msg = f"{spec.name} has no training block: add generator, samples and seed"
        raise SpecError(msg)
    return spec.training


def _reports(training: Generated) -> tuple[list[str], NDArray[np.float32]]:
    samples = list(generate(training.generator, training.samples, seed=training.seed, split=Split.TRAIN))
    return [str(sample.source) for sample in samples], np.array([bool(sample.label) for sample in samples], np.float32)


def _batches(
    x: NDArray[np.int32],
    rng: np.random.Generator,
) -> list[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Rows and tokens of all batches: short reports first, which teaches what a sentence means at little cost."""
    lengths = np.maximum((x != _PAD_ID).sum(axis=1), 1)
    batches = []
    for quantile in _CURRICULUM:
        # A little noise on the lengths, so that the same reports do not always meet.
        order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)))[: int(quantile * len(lengths))]
        starts = np.arange(0, len(order), _BATCH)
        for start in rng.permutation(starts):
            rows = order[start : start + _BATCH]
            tokens = x[rows, : lengths[rows].max()]
            # Words lost at random teach it to live with words it has never seen.
            lost = (rng.random(tokens.shape) < _UNKNOWN_RATE) & (tokens != _PAD_ID)
            batches.append((rows, np.where(lost, np.int32(_UNKNOWN_ID), tokens)))
    return batches
