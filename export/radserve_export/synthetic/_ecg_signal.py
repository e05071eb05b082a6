"""A model of the heart's dipole and its rhythms, seen by twelve leads.

A beat is a sum of Gaussians in time whose amplitudes are heart dipoles in the
axes of Frank (x to the left, y to the feet, z to the back). Dower's matrix
projects them to the leads. Rate, axis, amplitudes, electrode positions, wander,
mains hum and muscle noise are drawn anew for every recording and overlap
between the rhythms; only what defines a rhythm (rate, regularity, P waves, wide
premature beats) tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEADS: Final = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
DURATION_S: Final = 10
RATES_PER_MINUTE: Final = {
    "sinus_rhythm": (61.0, 95.0),
    "sinus_bradycardia": (36.0, 54.0),
    "sinus_tachycardia": (107.0, 160.0),
    "atrial_fibrillation": (60.0, 140.0),
    "premature_ventricular_beats": (61.0, 95.0),
}

# Dipole (x, y, z) to leads I, II, V1 ... V6: Dower et al., Clinical Cardiology 3 (1980) 87.
_DOWER: Final = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
# Leads I, II, V1 ... V6 to all twelve: Einthoven's and Goldberger's definitions.
_LIMB_LEADS: Final = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [-0.5, -0.5], [1.0, -0.5], [-0.5, 1.0]])
_TWELVE: Final = np.vstack([_LIMB_LEADS @ np.eye(2, 8), np.eye(8)[2:]])


# Septal, apical and basal activation of the ventricles, dipoles (x, y, z) in mV.
_QRS: Final = np.array([[-0.15, -0.10, -0.30], [0.95, 0.85, 0.15], [-0.10, -0.15, 0.45]])


@dataclass(frozen=True, kw_only=True)
class _Heart:
    """What one generated person's beats have in common."""

    gain_mv: float
    rotation: NDArray[np.float64]
    p_mv: NDArray[np.float64]
    pr_s: float
    qrs_scale: float
    qrs_mv: NDArray[np.float64]
    t_mv: NDArray[np.float64]
    t_delay: float
    t_width: float
    ectopic_dipole: NDArray[np.float64]
    ectopic_width_s: float


@dataclass(frozen=True, kw_only=True)
class _Beat:
    """One heart beat: when its R wave peaks, and how long the beat before and it itself lasts."""

    time_s: float
    interval_s: float
    ectopic: bool = False


def electrocardiogram(label: str, frequency_hz: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Twelve leads in the order of LEADS, ``(12, samples)``, millivolts."""
    samples = DURATION_S * frequency_hz
    heart = _draw_heart(rng)
    dipole = np.zeros((3, samples))
    fibrillating = label == "atrial_fibrillation"
    for beat in _draw_beats(label, rng):
        _add_beat(dipole, beat, heart, frequency_hz, with_p=not fibrillating, rng=rng)
    if fibrillating:
        dipole += _fibrillatory_waves(samples, frequency_hz, rng)
    placement = _DOWER + rng.normal(0.0, 0.1, _DOWER.shape)
    independent = placement @ dipole + _disturbance(samples, frequency_hz, rng)
    leads: NDArray[np.float64] = _TWELVE @ independent
    return leads


def _draw_heart(rng: np.random.Generator) -> _Heart:
    frontal, horizontal = rng.normal(0.0, np.radians([26.0, 22.0]))
    cos_f, sin_f, cos_h, sin_h = np.cos(frontal), np.sin(frontal), np.cos(horizontal), np.sin(horizontal)
    about_z = np.array([[cos_f, -sin_f, 0.0], [sin_f, cos_f, 0.0], [0.0, 0.0, 1.0]])
    about_y = np.array([[cos_h, 0.0, sin_h], [0.0, 1.0, 0.0], [-sin_h, 0.0, cos_h]])
    direction = rng.normal(size=3)
    return _Heart(
        gain_mv=float(np.clip(rng.lognormal(0.0, 0.25), 0.55, 1.8)),
        rotation=about_z @ about_y,
        p_mv=rng.uniform(0.05, 0.18) * (np.array([0.55, 0.90, -0.10]) + rng.normal(0.0, 0.2, 3)),
        pr_s=float(rng.uniform(0.12, 0.17)),
        qrs_scale=float(rng.uniform(0.85, 1.25)),
        qrs_mv=_QRS + rng.normal(0.0, 0.12, _QRS.shape),
        t_mv=rng.uniform(0.4, 1.8) * (np.array([0.26, 0.28, -0.12]) + rng.normal(0.0, 0.08, 3)),
        t_delay=float(rng.uniform(0.25, 0.31)),
        t_width=float(rng.uniform(0.03, 0.05)),
        ectopic_dipole=direction / np.linalg.norm(direction) * rng.uniform(1.0, 1.9),
        ectopic_width_s=float(rng.uniform(0.030, 0.045)),
    )


def _draw_beats(label: str, rng: np.random.Generator) -> list[_Beat]:
    """The beats that reach into the recording; the first and last may lie outside."""
    mean_s = 60.0 / rng.uniform(*RATES_PER_MINUTE[label])
    start_s = -rng.uniform(0.0, mean_s) - mean_s
    if label == "atrial_fibrillation":
        return _fibrillating_beats(start_s, mean_s, rng)
    breathing_hz, breathing_phase = rng.uniform(0.15, 0.35), rng.uniform(0.0, 2 * np.pi)
    # A fast heart follows breathing less.
    breathing_depth, jitter = rng.uniform(0.0, 0.06) * min(1.0, mean_s), rng.uniform(0.003, 0.015)
    times = [start_s]
    while times[-1] < DURATION_S + 2 * mean_s:
        swing = breathing_depth * np.sin(2 * np.pi * breathing_hz * times[-1] + breathing_phase)
        times.append(times[-1] + mean_s * (1.0 + swing + rng.normal(0.0, jitter)))
    beats = [_Beat(time_s=time, interval_s=time - before) for before, time in pairwise(times)]
    return _with_ectopics(beats, rng) if label == "premature_ventricular_beats" else beats


def _fibrillating_beats(start_s: float, mean_s: float, rng: np.random.Generator) -> list[_Beat]:
    """Beats whose intervals know nothing of each other."""
    variation = rng.uniform(0.20, 0.32)
    shortest_s = 0.3
    shape = ((mean_s - shortest_s) / (variation * mean_s)) ** 2
    beats, time_s = [], start_s
    while time_s < DURATION_S + 1.0:
        interval_s = shortest_s + rng.gamma(shape, (mean_s - shortest_s) / shape)
        time_s += interval_s
        beats.append(_Beat(time_s=time_s, interval_s=interval_s))
    return beats


def _with_ectopics(beats: list[_Beat], rng: np.random.Generator) -> list[_Beat]:
    """Replace some beats by earlier, ventricular ones; the pause after them is fully compensatory."""
    share = rng.choice((0.15, 0.25, 0.4, 0.5))
    well_inside = [k for k, beat in enumerate(beats) if 1.0 <= beat.time_s <= DURATION_S - 1.0]
    certain = int(rng.choice(well_inside))
    prematurity = rng.uniform(0.25, 0.45)
    replaced: list[_Beat] = []
    for k, beat in enumerate(beats):
        # Two ectopic beats in a row would be a couplet, another finding.
        next_to_certain = abs(k - certain) == 1
        free = not next_to_certain and not (replaced and replaced[-1].ectopic)
        if k == certain or (free and rng.random() < share):
            early_s = beat.interval_s * (prematurity + rng.normal(0.0, 0.015))
            replaced.append(_Beat(time_s=beat.time_s - early_s, interval_s=beat.interval_s, ectopic=True))
        else:
            replaced.append(beat)
    return replaced


def _add_beat(
    dipole: NDArray[np.float64],
    beat: _Beat,
    heart: _Heart,
    frequency_hz: int,
    *,
    with_p: bool,
    rng: np.random.Generator,
) -> None:
    """Add one beat's waves to the dipole ``(3, samples)``, in place."""
    gain = heart.gain_mv * rng.normal(1.0, 0.04)
    # The T wave comes sooner and is shorter in fast rhythms (Bazett).
    stretch = float(np.sqrt(np.clip(beat.interval_s, 0.3, 1.4)))
    if beat.ectopic:
        width_s, main = heart.ectopic_width_s, heart.ectopic_dipole
        waves = [
            (0.0, width_s, main),
            (2.2 * width_s, 1.1 * width_s, -0.35 * main),
            (0.20 + 0.14 * stretch, 0.07, -0.35 * main),
        ]
    else:
        q, (septal, apical, basal) = heart.qrs_scale, heart.qrs_mv @ heart.rotation.T
        t_s, t = heart.t_delay * stretch, heart.rotation @ heart.t_mv
        waves = [
            (-0.022 * q, 0.007 * q, septal),
            (0.0, 0.010 * q, apical),
            (0.024 * q, 0.010 * q, basal),
            (t_s, heart.t_width * stretch, t),
            (t_s + 1.2 * heart.t_width * stretch, 0.7 * heart.t_width * stretch, 0.4 * t),
        ]
        if with_p:
            pr_s = heart.pr_s * min(1.0, 0.5 + 0.5 * stretch)
            waves.append((-pr_s, 0.022, heart.p_mv / heart.gain_mv))
    for offset_s, width_s, vector in waves:
        center_s = beat.time_s + offset_s
        first = max(0, int((center_s - 4 * width_s) * frequency_hz))
        last = min(dipole.shape[1], int((center_s + 4 * width_s) * frequency_hz) + 2)
        if first < last:
            distance = (np.arange(first, last) / frequency_hz - center_s) / width_s
            dipole[:, first:last] += np.outer(gain * vector, np.exp(-0.5 * distance**2))


def _fibrillatory_waves(samples: int, frequency_hz: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Waves of 4 to 9 Hz that swell and fade, largest in V1, ``(3, samples)`` mV."""
    time_s = np.arange(samples) / frequency_hz
    rate_hz = rng.uniform(4.5, 8.0)
    wobble = rng.uniform(0.3, 1.2) * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * time_s + rng.uniform(0, 2 * np.pi))
    phase = 2 * np.pi * rate_hz * time_s + wobble + rng.uniform(0, 2 * np.pi)
    swell = 1.0 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.1, 0.6) * time_s + rng.uniform(0, 2 * np.pi))
    amplitude_mv = rng.uniform(0.015, 0.09)
    wave = amplitude_mv * swell * (np.sin(phase) + 0.35 * np.sin(2 * phase + rng.uniform(0, 2 * np.pi)))
    direction = np.array([-0.3, 0.5, -0.8]) + rng.normal(0.0, 0.2, 3)
    return np.outer(direction, wave)


def _disturbance(samples: int, frequency_hz: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Wander, moving electrodes, mains hum and muscle noise of the independent leads, ``(8, samples)`` mV."""
    time_s = np.arange(samples) / frequency_hz
    slow_hz = rng.uniform([0.05, 0.15, 0.3], [0.15, 0.3, 0.5])
    wander = np.sin(2 * np.pi * slow_hz[:, None] * time_s + rng.uniform(0, 2 * np.pi, (3, 1)))
    seen = rng.normal(0.0, rng.uniform(0.01, 0.10), (8, 3)) @ wander
    moved_s, lasting_s = rng.uniform(0.0, DURATION_S, (4, 1)), rng.uniform(0.05, 0.4, (4, 1))
    bumps = np.exp(-0.5 * ((time_s - moved_s) / lasting_s) ** 2)
    seen += rng.normal(0.0, rng.uniform(0.0, 0.04), (8, 4)) @ bumps
    mains = np.sin(2 * np.pi * rng.choice((50.0, 60.0)) * time_s + rng.uniform(0, 2 * np.pi))
    hum = np.outer(rng.normal(0.0, rng.uniform(0.0, 0.02), 8), mains)
    # White at the highest sampling frequency: a slower recorder sees less of its power.
    sigma_mv = rng.uniform(0.004, 0.03) * np.sqrt(frequency_hz / 1000)
    disturbance: NDArray[np.float64] = seen + hum + sigma_mv * rng.standard_normal((8, samples))
    return disturbance
