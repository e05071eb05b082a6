"""The generated ECGs: valid DICOM, repeatable, and with the rhythm their label says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from support.validators import dciodvfy

from radserve.contracts import WaveformInput
from radserve.dicom import read_waveform
from radserve.preprocess import check_scope, waveform_to_wire
from radserve_export.spec import load_spec
from radserve_export.synthetic import Split, ecg_rhythm, generate
from radserve_export.synthetic._ecg_signal import LEADS, RATES_PER_MINUTE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.synthetic.ecg_rhythm import Recording

SPEC = load_spec(Path(__file__).parents[2] / "export" / "specs" / "ecg_rhythm.yaml")
SINUS = ("sinus_rhythm", "sinus_bradycardia", "sinus_tachycardia")


@pytest.fixture(scope="module")
def described() -> WaveformInput:
    assert isinstance(SPEC.input, WaveformInput)
    return SPEC.input


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [ecg_rhythm.record(index, seed=5, split=Split.TEST) for index in range(60)]


def as_file(recording: Recording) -> bytes:
    return ecg_rhythm.to_dicom(recording, np.random.default_rng(0))


def in_lead_order(recording: Recording) -> NDArray[np.float64]:
    """Microvolts ``(samples, 12)``, leads as in LEADS."""
    (group,) = recording.to_waveform().groups
    found = dict(zip(recording.leads, group.channels, strict=True))
    return np.stack([found[lead].microvolts for lead in LEADS], axis=1)


def beat_times_s(recording: Recording) -> NDArray[np.float64]:
    """Where all leads together change fastest: one peak for each QRS complex."""
    step = recording.frequency_hz // 125
    signal = in_lead_order(recording)
    signal = signal[: len(signal) // step * step].reshape(-1, step, 12).mean(axis=1)
    slope = np.sqrt(((signal[2:] - signal[:-2]) ** 2).sum(axis=1))
    smooth = np.convolve(slope, np.hanning(9), mode="same")
    floor = 0.4 * np.percentile(smooth, 98)
    peaks: list[int] = []
    for place in np.argsort(smooth)[::-1]:
        if smooth[place] < floor:
            break
        if all(abs(place - other) > 0.25 * 125 for other in peaks):
            peaks.append(int(place))
    return np.sort(np.array(peaks)) / 125


@pytest.mark.parametrize("index", range(len(ecg_rhythm.LABELS)))
def test_dciodvfy_finds_nothing_wrong(index: int, tmp_path: Path) -> None:
    path = tmp_path / "ecg.dcm"
    path.write_bytes(as_file(ecg_rhythm.record(index, seed=3, split=Split.TEST)))
    assert dciodvfy(path) == ["TwelveLeadECG"]


def test_five_in_a_row_hold_each_rhythm_once(recordings: list[Recording]) -> None:
    labels = iter(recording.label for recording in recordings)
    while block := list(islice(labels, 5)):
        assert sorted(block) == sorted(ecg_rhythm.LABELS)


def test_the_same_seed_gives_the_same_bytes_however_many_are_asked_for() -> None:
    few = list(generate("ecg_rhythm", 3, seed=9, split=Split.TRAIN))
    many = list(generate("ecg_rhythm", 6, seed=9, split=Split.TRAIN))
    assert few == many[:3]


def test_no_signal_is_in_both_splits_or_under_two_seeds() -> None:
    streams = [(seed, split) for seed in (1, 2) for split in Split]
    signals = Counter(
        ecg_rhythm.record(index, seed=seed, split=split).counts.tobytes()
        for seed, split in streams
        for index in range(10)
    )
    assert set(signals.values()) == {1}


def test_the_file_holds_what_the_recording_holds(recordings: list[Recording], described: WaveformInput) -> None:
    for recording in recordings[:15]:
        read = read_waveform(as_file(recording))
        check_scope(read.scope, described)
        assert np.array_equal(waveform_to_wire(read, described), waveform_to_wire(recording.to_waveform(), described))


def test_lead_order_does_not_matter_on_the_wire(recordings: list[Recording], described: WaveformInput) -> None:
    recording = recordings[0]
    places = np.random.default_rng(1).permutation(12)
    shuffled = replace(
        recording,
        leads=tuple(recording.leads[place] for place in places),
        counts=recording.counts[:, places],
        corrections=recording.corrections[places],
        baselines_uv=recording.baselines_uv[places],
    )
    assert shuffled.leads != recording.leads
    one, other = (waveform_to_wire(read_waveform(as_file(each)), described) for each in (recording, shuffled))
    assert np.array_equal(one, other)


def test_files_differ_in_lead_order_rate_sensitivity_and_baseline(recordings: list[Recording]) -> None:
    assert {recording.frequency_hz for recording in recordings} == {250, 500, 1000}
    assert {recording.sensitivity_uv for recording in recordings} == {1.25, 2.5, 4.88}
    assert {recording.leads == LEADS for recording in recordings} == {True, False}
    assert {bool(recording.baselines_uv.any()) for recording in recordings} == {True, False}


def test_limb_leads_obey_einthoven(recordings: list[Recording]) -> None:
    for recording in recordings:
        one, two, three, avr, avl, avf = in_lead_order(recording)[:, :6].T
        rounding = 2 * recording.sensitivity_uv
        assert np.abs(one + three - two).max() <= rounding
        assert np.abs(avr + avl + avf).max() <= rounding


def test_amplitudes_are_those_of_a_surface_ecg(recordings: list[Recording]) -> None:
    peaks_mv = [np.ptp(in_lead_order(recording), axis=0).max() / 1000 for recording in recordings]
    assert min(peaks_mv) > 0.5
    assert max(peaks_mv) < 10


def test_sinus_rates_fit_the_label_and_are_regular(recordings: list[Recording]) -> None:
    for recording in recordings:
        if recording.label in SINUS:
            intervals_s = np.diff(beat_times_s(recording))
            slowest, fastest = RATES_PER_MINUTE[recording.label]
            assert 0.96 * slowest <= 60 / intervals_s.mean() <= 1.04 * fastest
            assert intervals_s.std() / intervals_s.mean() < 0.08


def test_fibrillation_is_irregular(recordings: list[Recording]) -> None:
    intervals = [np.diff(beat_times_s(each)) for each in recordings if each.label == "atrial_fibrillation"]
    variations = [each.std() / each.mean() for each in intervals]
    assert np.median(variations) > 0.18
    assert min(variations) > 0.08


def test_a_premature_beat_is_early_and_a_pause_follows(recordings: list[Recording]) -> None:
    for recording in recordings:
        if recording.label == "premature_ventricular_beats":
            before, after = (intervals := np.diff(beat_times_s(recording)))[:-1], intervals[1:]
            assert (after / before).max() > 1.5


def test_nobody_could_take_the_patient_for_real() -> None:
    (sample,) = generate("ecg_rhythm", 1, seed=1, split=Split.TEST)
    assert isinstance(sample.source, bytes)
    dataset = pydicom.dcmread(BytesIO(sample.source))
    assert str(dataset.PatientName).startswith("SYNTHETIC")
    assert dataset.PatientID.startswith("SYNTHETIC")
    assert not dataset.PatientBirthDate
