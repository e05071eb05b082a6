"""Train the report impression model, tokenizer included, on generated findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from radserve.contracts import TextInput
from radserve.errors import SpecError
from radserve_export.from_keras._tensorflow import keras, tf
from radserve_export.from_keras.training.report_triage import encode
from radserve_export.graphs.generation import LOGITS, PADDING, TARGET_IDS
from radserve_export.network import DECODER, ENCODER
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from radserve_export.datasets import Dataset, Progress
    from radserve_export.spec import Generation, Spec
    from radserve_export.spec_data import Generated

    Batch = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]

MAX_VOCABULARY = 1000
_PAD = "[PAD]"
_UNITS = 64
_DROPOUT = 0.1
_EPOCHS = 3
_BATCH = 64
_LEARNING_RATE = 5e-3
_CLIP_NORM = 1.0
# Share of the words read by the decoder that are others than those written: it must look at the findings.
_WRONG_RATE = 0.03
_EMPTY_SHARE = 0.005


def build_tokenizer(spec: Spec) -> Tokenizer:
    """Train the tokenizer on the reports that ``spec.training`` generates.

    Byte pairs, so that any text has tokens and is exactly what its tokens say, in
    any language; each Chinese character and each digit by itself. Token 0 is
    ``[PAD]``; the tokens that the spec names to begin and end a text come next.

    Args:
        spec: The export spec; it must have ``training`` and ``generation``.

    Returns:
        The tokenizer: ``save(path)`` writes the same bytes for the same spec.

    Raises:
        SpecError: The spec lacks one of them, or names no such generator.
    """
    plan, generation = _plans(spec)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}|\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        special_tokens=[_PAD, generation.start, generation.end],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for pair in _reports(plan) for text in pair], trainer)
    return tokenizer


def build_network(vocabulary: int) -> keras.Model:
    """The network, untrained.

    A bidirectional LSTM reads the findings; an LSTM writes, and for each word
    looks at those of the findings (dot-product attention: Luong, Pham and
    Manning, EMNLP 2015). What it looks at also reaches the output directly, which makes
    copying easy.

    Args:
        vocabulary: Number of token ids.

    Returns:
        From source ids and target ids ``(n, tokens)`` int32, padded with 0 on the
        right, to logits ``(n, target tokens, vocabulary)`` float32; its layers
        ``encoder`` and ``decoder`` are what is served (see ``from_keras.generation``).
    """
    source = keras.Input((None,), dtype="int32", name="source_ids")
    target = keras.Input((None,), dtype="int32", name=TARGET_IDS)
    decoder = _decoder(vocabulary)
    logits = decoder({TARGET_IDS: target, **_encoder(vocabulary)(source)})[LOGITS]
    return keras.Model([source, target], logits, name="report_impression")


def _embedding(vocabulary: int) -> keras.layers.Layer:
    # Keras' own small values take many times longer to learn from.
    return keras.layers.Embedding(vocabulary, _UNITS, embeddings_initializer=keras.initializers.RandomNormal(stddev=1))


def _encoder(vocabulary: int) -> keras.Model:
    layers = keras.layers
    source = keras.Input((None,), dtype="int32", name="source_ids")
    mask = keras.ops.not_equal(source, PADDING)
    words = _embedding(vocabulary)(source)
    reader = layers.Bidirectional(layers.LSTM(_UNITS, return_sequences=True, return_state=True))
    told, forward_h, forward_c, backward_h, backward_c = reader(words, mask=mask)
    state_h = layers.Dense(2 * _UNITS, activation="tanh")(layers.Concatenate()([forward_h, backward_h]))
    state_c = layers.Dense(2 * _UNITS)(layers.Concatenate()([forward_c, backward_c]))
    memory = layers.Concatenate()([words, told])
    given = {"memory": memory, "mask": mask, "state_h": state_h, "state_c": state_c}
    return keras.Model(source, given, name=ENCODER)


def _decoder(vocabulary: int) -> keras.Model:
    layers = keras.layers
    taken = {
        TARGET_IDS: keras.Input((None,), dtype="int32", name=TARGET_IDS),
        "memory": keras.Input((None, 3 * _UNITS), name="memory"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
        "state_h": keras.Input((2 * _UNITS,), name="state_h"),
        "state_c": keras.Input((2 * _UNITS,), name="state_c"),
    }
    words = _embedding(vocabulary)(taken[TARGET_IDS])
    writer = layers.LSTM(2 * _UNITS, return_sequences=True, return_state=True)
    hidden, state_h, state_c = writer(words, initial_state=[taken["state_h"], taken["state_c"]])
    hidden = layers.Dropout(_DROPOUT)(hidden)
    query = layers.Dense(3 * _UNITS)(hidden)
    seen = layers.Attention()([query, taken["memory"]], mask=[None, taken["mask"]])
    joined = layers.Dense(2 * _UNITS, activation="tanh")(layers.Concatenate()([hidden, seen, words]))
    joined = layers.Dropout(_DROPOUT)(joined)
    logits = layers.Dense(vocabulary)(layers.Concatenate()([joined, seen]))
    return keras.Model(taken, {LOGITS: logits, "state_h": state_h, "state_c": state_c}, name=DECODER)


def train(spec: Spec, data: Dataset | None, progress: Progress) -> keras.Model:
    """Train on the reports that ``spec.training`` generates, from set seeds.

    Args:
        spec: The export spec; its tokenizer is what `build_tokenizer` gives.
        data: Not supported: must be None.
        progress: Told of each batch.

    Returns:
        The trained model, without optimizer.

    Raises:
        SpecError: Own data were given, or the spec is not one of a generator to train.
    """
    if data is not None:
        msg = f"{spec.name} trains on generated reports only: leave the data option out"
        raise SpecError(msg)
    plan, generation = _plans(spec)
    keras.utils.set_random_seed(plan.seed)
    tokenizer = build_tokenizer(spec)
    ids = tokenizer.get_vocab()
    start, end = ids[generation.start], ids[generation.end]
    source, target = _ids(tokenizer, spec, _reports(plan), end)
    network = build_network(tokenizer.get_vocab_size())
    rng = np.random.default_rng(plan.seed)
    total = _EPOCHS * -(-len(source) // _BATCH)
    step = _step(network, keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, total))
    done = 0
    for _ in range(_EPOCHS):
        for batch in _batches(source, target, start, rng):
            step(*map(tf.constant, batch))
            done += 1
            progress(f"training {spec.name}", done, total)
    return network


def _plans(spec: Spec) -> tuple[Generated, Generation]:
    if spec.training is None or spec.generation is None or not isinstance(spec.input, TextInput):
        msg = (
            f"{spec.name} needs an input of kind text, a training and a generation block:"
            " see export/specs/report_impression.yaml"
        )
        raise SpecError(msg)
    return spec.training, spec.generation


def _reports(plan: Generated) -> list[tuple[str, str]]:
    samples = generate(plan.generator, plan.samples, seed=plan.seed, split=Split.TRAIN)
    return [(str(sample.source), sample.expected or "") for sample in samples]


def _ids(
    tokenizer: Tokenizer, spec: Spec, reports: Sequence[tuple[str, str]], end: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Source and target ids, the end token included."""
    _, generation = _plans(spec)
    # Of a text without a word there is nothing to say: least of all that all is well.
    pairs = [*reports, *[("", "")] * int(_EMPTY_SHARE * len(reports))]
    source = encode(tokenizer, [findings for findings, _ in pairs], getattr(spec.input, "max_tokens", 0))
    target = encode(tokenizer, [f"{impression}{generation.end}" for _, impression in pairs], generation.max_tokens)
    if not (target == end).any(axis=1).all():
        msg = f"{spec.name}: generation.max_tokens is too small for the impressions of {_plans(spec)[0].generator}"
        raise SpecError(msg)
    return source, target


def _batches(
    source: NDArray[np.int32], target: NDArray[np.int32], start: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Source ids, what the decoder reads and what it must write, of reports of like length together."""
    lengths = (source != PADDING).sum(axis=1)
    # A little noise on the lengths, so that the same reports do not always meet.
    order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)))
    for first in rng.permutation(np.arange(0, len(order), _BATCH)):
        rows = order[first : first + _BATCH]
        taken, written = (
            ids[rows, : max(1, int((ids[rows] != PADDING).sum(axis=1).max()))] for ids in (source, target)
        )
        read = np.concatenate([np.full((len(rows), 1), start, np.int32), written[:, :-1]], axis=1)
        wrong = (rng.random(read.shape) < _WRONG_RATE) & (read != PADDING) & (read != start)
        others = rng.integers(start + 1, target.max() + 1, read.shape, dtype=np.int32)
        yield taken, np.where(wrong, others, read), written


def _step(network: keras.Model, rate: Any) -> Callable[..., tf.Tensor]:  # noqa: ANN401 - a Keras schedule
    optimizer = keras.optimizers.Adam(rate, clipnorm=_CLIP_NORM)
    variables = network.trainable_variables
    optimizer.build(variables)

    def step(source: tf.Tensor, read: tf.Tensor, written: tf.Tensor) -> tf.Tensor:
        counted = tf.cast(written != PADDING, tf.float32)
        with tf.GradientTape() as tape:
            logits = network([source, read], training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(written, logits)
            loss = tf.reduce_sum(losses * counted) / tf.reduce_sum(counted)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    compiled: Callable[..., tf.Tensor] = tf.function(step, reduce_retracing=True, jit_compile=False, autograph=False)
    return compiled
