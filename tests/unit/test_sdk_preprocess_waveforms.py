"""From recorded leads to the wire."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radserve.contracts import (
    Code,
    Lead,
    Policy,
    WaveformInput,
)
from radserve.errors import OutOfScopeError
from radserve.preprocess import (
    resample,
    waveform_to_wire,
)
from radserve.sources import Channel, MultiplexGroup, Waveform

LEADS = tuple(
    Lead(
        name=name,
        codes=(Code(value=code, scheme="MDC", meaning=name), Code(value=f"S{code}", scheme="SCPECG", meaning=name)),
    )
    for name, code in (("I", "2:1"), ("II", "2:2"))
)


def wave(**changed: Any) -> WaveformInput:
    standard: dict[str, Any] = {"modalities": ("ECG",), "leads": LEADS, "sampling_frequency_hz": 100, "samples": 100}
    return WaveformInput(**{**standard, **changed})


def group(
    one: Any, two: Any, *, rate: float = 100, codes: tuple[str, str] = ("2:1", "2:2"), scheme: str = "MDC"
) -> MultiplexGroup:
    channels = (
        Channel(codes=((codes[0], scheme),), microvolts=np.asarray(one, float)),
        Channel(codes=((codes[1], scheme),), microvolts=np.asarray(two, float)),
    )
    return MultiplexGroup(sampling_frequency_hz=rate, channels=channels)


def test_leads_are_found_by_code_and_put_in_order() -> None:
    swapped = Waveform(groups=(group(np.full(100, 2), np.full(100, 1), codes=("S2:2", "S2:1"), scheme="SCPECG"),))
    wire = waveform_to_wire(swapped, wave())
    assert wire.dtype == np.int16
    assert wire[0].tolist() == [1, 2]


def test_the_longest_group_that_holds_all_leads_is_used() -> None:
    groups = (
        group(np.full(50, 7), np.full(50, 7)),
        group(np.full(500, 8), np.full(500, 8), codes=("2:1", "9:9")),
        group(np.full(100, 9), np.full(100, 9)),
    )
    assert waveform_to_wire(Waveform(groups=groups), wave())[0, 0] == 9


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ((group(np.ones(100), np.ones(100), codes=("2:1", "9:9")),), "lead II"),
        ((group(np.ones(100), np.ones(100), codes=("2:1", "2:1")),), "two channels"),
        ((group(np.ones(99), np.ones(99)),), "shorter"),
        ((group(np.ones(101), np.ones(101)),), "longer"),
        ((group([np.nan, *np.ones(99)], np.ones(100)),), "gaps"),
        ((group([*np.ones(99), np.nan], np.ones(100)),), "shorter"),
        ((group(np.full(100, 40_000), np.ones(100)),), "amplitude"),
        ((), "lead I, II"),
    ],
)
def test_a_recording_that_the_model_cannot_read_is_refused(groups: tuple[MultiplexGroup, ...], says: str) -> None:
    with pytest.raises(OutOfScopeError, match=says):
        waveform_to_wire(Waveform(groups=groups), wave())


def test_of_a_longer_recording_the_beginning_is_taken_if_the_contract_says_so() -> None:
    longer = Waveform(groups=(group(np.arange(1000), np.arange(1000)),))
    assert waveform_to_wire(longer, wave(longer=Policy.ACCEPT))[:, 0].tolist() == list(range(100))


def test_the_wire_counts_in_steps_of_the_resolution() -> None:
    wire = waveform_to_wire(Waveform(groups=(group(np.full(100, 12.4), np.full(100, -12.6)),)), wave(resolution_uv=5.0))
    assert wire[0].tolist() == [2, -3]


@pytest.mark.parametrize("rate_out", [50.0, 100.0, 257.3, 360.0, 500.0, 1000.0])
def test_resampling_keeps_what_the_new_rate_can_hold_and_removes_the_rest(rate_out: float) -> None:
    time_s = np.arange(5000) / 500
    signal = np.sin(2 * np.pi * 5 * time_s) + 0.3 * np.sin(2 * np.pi * 90 * time_s)
    found = resample(signal, 500, rate_out)
    assert len(found) == int(5000 * rate_out / 500)
    time_s = np.arange(len(found)) / rate_out
    held = 0.3 * np.sin(2 * np.pi * 90 * time_s) if rate_out > 200 else 0
    middle = slice(len(found) // 10, -len(found) // 10)
    assert np.abs(found - np.sin(2 * np.pi * 5 * time_s) - held)[middle].max() < 1e-4


@pytest.mark.parametrize("rate_out", [100.0, 360.0, 777.7])
def test_an_offset_or_slope_does_not_ring_at_the_ends(rate_out: float) -> None:
    ramp = 5000 + 3 * np.arange(2000.0)
    found = resample(np.stack([np.full(2000, 1e5), ramp], axis=1), 500, rate_out)
    assert np.abs(found[:, 0] - 1e5).max() < 1e-6
    assert np.abs(found[:, 1] - 5000 - 1500 * np.arange(len(found)) / rate_out).max() < 0.01


@settings(max_examples=60)
@given(st.integers(1, 300), st.floats(1, 2000), st.floats(1, 2000), st.integers(1, 400))
def test_any_ratio_gives_finite_samples_within_reach(length: int, rate_in: float, rate_out: float, count: int) -> None:
    signal = np.random.default_rng(length).uniform(-1, 1, length)
    found = resample(signal, rate_in, rate_out, count)
    assert len(found) <= count
    assert np.isfinite(found).all()


# Flat stretches halfway between two steps of the wire, at rates of a few phases and of many.
HALFWAY = """
import hashlib
import numpy as np
from unit.test_sdk_preprocess_waveforms import LEADS, Policy, Waveform, group, wave, waveform_to_wire

drawn = np.random.default_rng(0)
found = hashlib.sha256()
for rate in (1000, 500, 360, 257):
    one, two = (np.repeat(drawn.integers(-200, 200, rate // 5) + 0.5, 50) for _ in "12")
    recording = Waveform(groups=(group(one, two, rate=rate),))
    found.update(waveform_to_wire(recording, wave(samples=900, longer=Policy.ACCEPT)).tobytes())
print(found.hexdigest())
"""


def test_neither_the_kernels_nor_the_threads_of_the_algebra_library_decide_a_step() -> None:
    wires = set()
    for variables in ({"NUM_THREADS": "1"}, {"NUM_THREADS": "2"}, {"CORETYPE": "Nehalem"}, {"CORETYPE": "Haswell"}):
        environment = os.environ | {f"OPENBLAS_{name}": value for name, value in variables.items()}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        run = subprocess.run([sys.executable, "-c", HALFWAY], env=environment, check=True, capture_output=True)  # noqa: S603 - ourselves
        wires.add(run.stdout)
    assert len(wires) == 1
