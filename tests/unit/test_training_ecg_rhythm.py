"""Training of the ECG network, and the trained model that is committed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from radserve.contracts import WaveformInput
from radserve.dicom import read_waveform
from radserve.errors import SpecError
from radserve.preprocess import check_scope, waveform_to_wire
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.training import Dataset, _generated, ecg_rhythm
from radserve_export.from_keras.training.ecg_rhythm import build_network, train
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.spec import Spec, load_spec
from radserve_export.spec_data import Generated
from radserve_export.synthetic import Split

EXPORT = Path(__file__).parents[2] / "export"
SPEC = load_spec(EXPORT / "specs" / "ecg_rhythm.yaml")
MODEL = EXPORT / "trained" / "ecg_rhythm.keras"
BRADYCARDIA, TACHYCARDIA = 1, 2


def silent(description: str, done: int, total: int) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def described() -> WaveformInput:
    assert isinstance(SPEC.input, WaveformInput)
    return SPEC.input


@pytest.fixture(scope="module")
def committed() -> keras.Model:
    return keras.models.load_model(MODEL, safe_mode=True)


def wire(described: WaveformInput, count: int, *, seed: int, split: Split) -> Dataset:
    waveforms, found = _generated.wire_samples("ecg_rhythm", count, described, seed=seed, split=split, progress=silent)
    names = [label.name for label in SPEC.labels]
    return Dataset(x=waveforms, y=np.array([names.index(name) for name in found]))


def slow_and_fast(described: WaveformInput, count: int, *, split: Split) -> Dataset:
    """The easiest pair of rhythms."""
    data = wire(described, count, seed=1, split=split)
    chosen = np.isin(data.y, (BRADYCARDIA, TACHYCARDIA))
    return Dataset(x=data.x[chosen], y=(data.y[chosen] == TACHYCARDIA).astype(np.int64))


def accuracy(model: keras.Model, spec: Spec, data: Dataset) -> float:
    probabilities = model.predict(preprocess_reference(data.x, spec.network_input), verbose=0)
    return float((probabilities.argmax(axis=1) == data.y).mean())


def test_committed_model_recognises_fresh_rhythms(committed: keras.Model, described: WaveformInput) -> None:
    assert accuracy(committed, SPEC, wire(described, 200, seed=4711, split=Split.TEST)) >= 0.95


def test_committed_model_is_the_plain_architecture_without_optimizer(committed: keras.Model) -> None:
    wanted = build_network((200, 12), 5)
    assert [layer.get_config() for layer in committed.layers] == [layer.get_config() for layer in wanted.layers]
    assert MODEL.stat().st_size < 1.5 * 4 * wanted.count_params()


def test_committed_model_cannot_overflow(committed: keras.Model) -> None:
    _, recurrent, _ = committed.get_layer("lstm").get_weights()
    assert recurrent[:, 128:192].max() <= 0
    extremes = np.array([-32768, 32767], np.int16)[np.random.default_rng(1).integers(0, 2, (50, 200, 12))]
    assert np.isfinite(committed.predict(preprocess_reference(extremes, SPEC.network_input), verbose=0)).all()


@pytest.mark.parametrize("largest", [1000, 10_000, 32_767])
def test_committed_model_is_undecided_about_noise(committed: keras.Model, largest: int) -> None:
    noise = np.random.default_rng(2).integers(-largest, largest, (100, 200, 12), endpoint=True).astype(np.int16)
    largest_probabilities = committed.predict(preprocess_reference(noise, SPEC.network_input), verbose=0).max(axis=1)
    assert np.median(largest_probabilities) < 0.4


def test_a_real_recording_is_accepted_and_answered(committed: keras.Model, described: WaveformInput) -> None:
    recording = read_waveform(str(get_testdata_file("waveform_ecg.dcm", download=False)))
    check_scope(recording.scope, described)
    samples = waveform_to_wire(recording, described)
    assert samples.shape == (200, 12)
    assert 300 < np.abs(samples).max() * described.resolution_uv < 5000
    probabilities = committed.predict(preprocess_reference(samples[None], SPEC.network_input), verbose=0)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_a_users_own_two_classes_are_learnt_and_the_steps_reported(
    described: WaveformInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ecg_rhythm, "_WAVEFORMS_SEEN", 6000)
    spec = msgspec.structs.replace(SPEC, labels=(SPEC.labels[BRADYCARDIA], SPEC.labels[TACHYCARDIA]))
    steps: list[tuple[int, int]] = []
    data = slow_and_fast(described, 280, split=Split.TRAIN)
    model = train(spec, data, lambda _description, done, total: steps.append((done, total)))
    assert accuracy(model, spec, slow_and_fast(described, 100, split=Split.TEST)) >= 0.9
    assert steps == [(n, len(steps)) for n in range(1, len(steps) + 1)]
    assert not model.compiled


def test_the_spec_alone_is_enough_and_its_seed_fixes_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecg_rhythm, "_WAVEFORMS_SEEN", 1)
    monkeypatch.setattr(ecg_rhythm, "_FEWEST_EPOCHS", 1)
    spec = msgspec.structs.replace(SPEC, training=Generated(generator="ecg_rhythm", samples=10, seed=1))
    descriptions: list[str] = []
    one = train(spec, None, lambda description, _done, _total: descriptions.append(description))
    other = train(spec, None, silent)
    assert one.output_shape == (None, 5)
    assert descriptions == ["generating data", "Training ecg_rhythm"]
    for left, right in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_generation_in_processes_gives_what_generation_alone_gives(
    described: WaveformInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = wire(described, 60, seed=2, split=Split.TRAIN)
    monkeypatch.setattr(_generated, "_ALONE", 0)
    together = wire(described, 60, seed=2, split=Split.TRAIN)
    np.testing.assert_array_equal(alone.x, together.x)
    np.testing.assert_array_equal(alone.y, together.y)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"input": None}, "waveform input"),
        ({"exclusive": False}, "exclusive"),
        ({"labels": SPEC.labels[:1]}, "two labels"),
        ({"training": None}, "training"),
        (
            {"labels": SPEC.labels[:4], "training": Generated(generator="ecg_rhythm", samples=5, seed=1)},
            "premature_ventricular_beats",
        ),
    ],
    ids=["no waveform", "not exclusive", "one label", "nothing to generate", "label missing"],
)
def test_a_spec_that_does_not_fit_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        train(msgspec.structs.replace(SPEC, **change), None, silent)
