"""Training of ``ecg_rhythm``: a recurrent network on generated 12-lead ECGs, or on a user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve.contracts import WaveformInput
from radserve.errors import SpecError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training._generated import generate_dataset
from radserve_export.graphs.preprocess import preprocess_reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.from_keras.training import Dataset, Progress
    from radserve_export.spec import Spec

_UNITS = 64
_BATCH = 64
_LEARNING_RATE = 8e-3
# Little data is seen more often, much data less often.
_WAVEFORMS_SEEN = 100_000
_FEWEST_EPOCHS, _MOST_EPOCHS = 5, 60
_LONGEST_MEMORY_STEPS = 60  # at 20 Hz three seconds: two slow beats and what is between them
_GAIN_SPREAD, _LEAD_GAIN_SPREAD = 0.4, 0.12
_NOISE_SHARE = 0.08
_FAINTEST_NOISE = 0.01  # of what the wire can hold
_SEED_WITHOUT_SPEC = 1


def train(spec: Spec, data: Dataset | None, progress: Progress) -> keras.Model:
    """Train the network on wire arrays, scaled as the served model scales them.

    Args:
        spec: Says leads, length, labels and scaling; with ``data`` None, also how
            many recordings to generate, from which seed.
        data: The user's own recordings, ``x`` of shape ``(n, samples, leads)``;
            None generates them and preprocesses them with the SDK.
        progress: Told of recordings generated and epochs trained.

    Returns:
        The trained network, without optimizer: ``(n, samples, leads)`` float32
        in, probabilities ``(n, labels)`` out, finite for every finite input.

    Raises:
        SpecError: The spec is not one of exclusive waveform classes, or does not
            say what to generate.
    """
    described = spec.input
    if not isinstance(described, WaveformInput) or not spec.exclusive or len(spec.labels) < 2:  # noqa: PLR2004 - a choice needs two
        msg = f"{spec.name}: this network needs a waveform input, exclusive: true and two labels or more"
        raise SpecError(msg)
    if data is None:
        data = generate_dataset(spec, described, progress)
    seed = spec.training.seed if spec.training else _SEED_WITHOUT_SPEC
    keras.utils.set_random_seed(seed)
    shape = (described.samples, len(described.leads))
    network = build_network(shape, len(spec.labels), constraint=_CandidateInhibited())
    rng = np.random.default_rng(seed)
    _remember_long(network.get_layer("lstm"), rng)
    _fit(network, data, spec, rng, progress)
    # Without the optimizer, two thirds of the saved file, and without the constraint, which no other program knows.
    trained = build_network(shape, len(spec.labels))
    trained.set_weights(network.get_weights())
    return trained


def build_network(
    waveform: tuple[int, int], labels: int, *, constraint: keras.constraints.Constraint | None = None
) -> keras.Model:
    """Build the untrained network.

    Args:
        waveform: Samples and leads.
        labels: Number of classes.
        constraint: On the recurrent kernel, while training.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(waveform, name="waveform"),
            layers.LSTM(
                _UNITS,
                activation="relu",
                recurrent_initializer=keras.initializers.Orthogonal(0.5),
                recurrent_constraint=constraint,
                name="lstm",
            ),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(labels, activation="softmax", name="probabilities"),
        ],
        name="ecg_rhythm",
    )


class _CandidateInhibited(keras.constraints.Constraint):  # type: ignore[misc]  # keras has no types
    """Lets the previous output lower the LSTM's candidate, never raise it.

    With relu, output and cell are never negative, so the cell grows by at most
    ``relu(W x + b)`` a step: linearly with time. Without the constraint it can
    double at every step and overflow.
    """

    def __call__(self, w: keras.KerasTensor) -> keras.KerasTensor:
        input_gate, forget_gate, candidate, output_gate = keras.ops.split(w, 4, axis=1)
        candidate = keras.ops.minimum(candidate, 0.0)
        return keras.ops.concatenate([input_gate, forget_gate, candidate, output_gate], axis=1)


def _remember_long(lstm: keras.layers.LSTM, rng: np.random.Generator) -> None:
    """Start with memories of many lengths, or intervals between beats are never learned.

    Chrono initialisation of the gates' biases: Tallec and Ollivier, ICLR 2018.
    """
    kernel, recurrent, bias = lstm.get_weights()
    recurrent[:, 2 * _UNITS : 3 * _UNITS] = 0.0
    forget = np.log(rng.uniform(1.0, _LONGEST_MEMORY_STEPS, _UNITS))
    bias[:_UNITS], bias[_UNITS : 2 * _UNITS] = -forget, forget
    lstm.set_weights([kernel, recurrent, bias])


def _fit(network: keras.Model, data: Dataset, spec: Spec, rng: np.random.Generator, progress: Progress) -> None:
    waveforms, targets = (
        preprocess_reference(data.x, spec.network_input),
        np.eye(len(spec.labels), dtype=np.float32)[data.y],
    )
    noisy = round(_NOISE_SHARE * len(waveforms))
    undecided = np.full((noisy, len(spec.labels)), 1 / len(spec.labels), np.float32)
    batch = min(_BATCH, len(waveforms))
    # Whole batches only: each shape would be compiled anew.
    used = (len(waveforms) + noisy) // batch * batch
    epochs = int(np.clip(round(_WAVEFORMS_SEEN / used), _FEWEST_EPOCHS, _MOST_EPOCHS))
    steps = epochs * used // batch
    warmup = steps // 10
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, alpha=0.01, warmup_target=_LEARNING_RATE, warmup_steps=warmup
    )
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    network.compile(optimizer, "categorical_crossentropy", jit_compile=True)
    for epoch in range(epochs):
        noise = preprocess_reference(_noise((noisy, *data.x.shape[1:]), rng), spec.network_input)
        seen = np.concatenate([_augment(waveforms, rng), noise])
        wanted = np.concatenate([targets, undecided])
        chosen = rng.permutation(len(seen))[:used]
        network.fit(seen[chosen], wanted[chosen], batch_size=batch, shuffle=False, verbose=0)
        progress("Training ecg_rhythm", epoch + 1, epochs)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int16]:
    """White noise on the wire, from faint to all that it can hold, ``(n, samples, leads)``.

    The network learns to be undecided about it. Otherwise its gates switch
    chaotically on large noise, and rounding alone changes the answer.
    """
    largest = np.iinfo(np.int16).max * np.exp(rng.uniform(np.log(_FAINTEST_NOISE), 0.0, (shape[0], 1, 1)))
    noise: NDArray[np.int16] = (rng.uniform(-1.0, 1.0, shape) * largest).astype(np.int16)
    return noise


def _augment(waveforms: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Vary the amplitude of each recording, and of its leads against each other."""
    whole = rng.uniform(-_GAIN_SPREAD, _GAIN_SPREAD, (len(waveforms), 1, 1))
    leads = rng.normal(0.0, _LEAD_GAIN_SPREAD, (len(waveforms), 1, waveforms.shape[2]))
    changed: NDArray[np.float32] = waveforms * np.exp(whole + leads).astype(np.float32)
    return changed
