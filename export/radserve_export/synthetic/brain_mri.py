"""Brain phantoms: generated T2-FLAIR MR sections of four classes.

A phantom is a head as in ``ct_hemorrhage`` with the brightness that its
tissues have in FLAIR. MR has no scale: each file has a factor of its own (over
a range of 1 to 20) and a field of its own that makes one side brighter than
the other. A lesion follows a reader's rules of thumb: a neoplasm is an uneven
mass with a dark core in fingers of oedema and pushes the midline, an infarct
fills a wedge up to the cortex, white matter lesions are several small spots
around the ventricles; bright caps of the horns are normal. It is a drawing:
what works on phantoms is not thereby shown to work on patients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve_export.synthetic import Sample, Split
from radserve_export.synthetic._drawing import STREAM, either, in_turn, label_map, step
from radserve_export.synthetic._head import fill_skull, place_head
from radserve_export.synthetic._mr_file import MAXIMUM, Section, mr_file

if TYPE_CHECKING:
    from radserve_export.synthetic._drawing import Plane
    from radserve_export.synthetic._head import Brain, Head

LABELS = ("normal", "neoplasm", "infarct", "white_matter_lesions")

_GREY, _WHITE, _NUCLEI, _CSF = 0.62, -0.12, 0.03, 0.06
# From here on a pixel counts as lesion.
_HALF = 0.5


def make_sample(index: int, *, seed: int, split: Split) -> Sample:
    """Make one MR section of a brain, whatever came before it.

    Args:
        index: Its place in the sequence, from 0; it also gives the class.
        seed: As for ``generate``.
        split: As for ``generate``.

    Returns:
        A DICOM file with one of LABELS, and with the lesion's place.
    """
    section, lesion = make_section(index, seed=seed, split=split)
    label = index % len(LABELS)
    truth = None if lesion is None else lesion > _HALF
    return Sample(source=mr_file(section), label=LABELS[label], truth=label_map(truth, label))


generate = in_turn(make_sample)


def make_section(index: int, *, seed: int, split: Split, factor: float | None = None) -> tuple[Section, Plane | None]:
    """Make what ``make_sample`` writes, and how much of each pixel is lesion.

    Args:
        index: Place in the sequence.
        seed: As for ``generate``.
        split: As for ``generate``.
        factor: Stored value of brightness 1; None draws one, as ``generate`` does.
    """
    rng = np.random.default_rng([STREAM[split], seed, index])
    head = place_head(rng)
    signal, lesion = _signal(rng, head, LABELS[index % len(LABELS)])
    noise = np.float32(rng.uniform(0.01, 0.035))
    quadrature = noise * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.hypot(signal * _coil(rng, head) + quadrature[0], quadrature[1])  # noise of a magnitude is Rician
    drawn = float(np.exp(rng.uniform(np.log(120), np.log(2400))))
    section = Section(
        values=np.rint(magnitude * np.float32(factor or drawn)).clip(0, MAXIMUM).astype(np.uint16),
        spacing_mm=head.spacing_mm,
        thickness_mm=either(rng, 3.0, 5.0),
        age_years=int(rng.integers(20, 90)),
        sex=either(rng, "F", "M"),
        identity=f"brain_mri-{split.value}-{seed}-{index}",
    )
    return section, lesion


def _signal(rng: np.random.Generator, head: Head, label: str) -> tuple[Plane, Plane | None]:
    """Brightness without coil and noise, and the lesion's share of each pixel."""
    side = either(rng, 1.0, -1.0)
    size = rng.uniform(11, 20)  # only a neoplasm pushes
    brain = fill_skull(rng, head, shift_mm=-side * (size - 8) * 0.5 if label == "neoplasm" else 0.0)
    signal = _tissue(rng, head, brain)
    lesion: Plane | None = None
    if label == "neoplasm":
        signal, lesion = _neoplasm(rng, head, brain, signal, side * size)
    elif label == "infarct":
        lesion = _infarct(rng, head, brain, side)
    elif label == "white_matter_lesions":
        lesion = _spots(rng, head, brain)
    if lesion is not None and label != "neoplasm":
        bright = np.float32(rng.uniform(0.86, 1.02)) + np.float32(0.03) * head.cloud(rng, 20)
        signal = signal + (bright - signal) * lesion
    return _cover(rng, head, brain, signal), lesion


def _tissue(rng: np.random.Generator, head: Head, brain: Brain) -> Plane:
    """The brain without lesion."""
    signal = np.float32(_GREY) + np.float32(_WHITE) * brain.white + np.float32(_NUCLEI) * brain.nuclei
    signal += np.float32(0.02) * head.cloud(rng, 12)
    rim = np.exp(-(((brain.ventricles + 1) / np.float32(2)) ** 2)) * head.off_middle(26, 8)
    signal = signal + np.float32(rng.uniform(0.1, 0.4)) * rim
    tissue: Plane = signal + (np.float32(_CSF) - signal) * brain.csf
    return tissue


def _cover(rng: np.random.Generator, head: Head, brain: Brain, signal: Plane) -> Plane:
    """Dark bone and bright fat of the scalp around the brain."""
    out = -head.depth
    fat = np.float32(rng.uniform(0.5, 0.95))
    around = np.float32(0.04) + (fat - np.float32(0.04)) * head.share(out - np.float32(head.bone_mm))
    around *= 1 - head.share(out - np.float32(head.bone_mm + head.scalp_mm))
    covered: Plane = around + (signal - around) * brain.inside
    return covered


def _coil(rng: np.random.Generator, head: Head) -> Plane:
    """How brightly the coils see each place."""
    along = np.float32(rng.uniform(-0.3, 0.3)) * head.x / 70 + np.float32(rng.uniform(-0.3, 0.3)) * head.y / 85
    field: Plane = np.exp(along + np.float32(0.10) * head.cloud(rng, 2))
    return field


def _neoplasm(
    rng: np.random.Generator, head: Head, brain: Brain, signal: Plane, signed_size: float
) -> tuple[Plane, Plane]:
    """Draw a mass in fingers of oedema; both are the lesion."""
    size, side = abs(signed_size), np.sign(signed_size)
    x, y = head.somewhere(rng, (head.depth > size + 6) & (head.side(side) > 0.7 * size + 4))
    mass = head.ellipse(x, y, size, size * rng.uniform(0.75, 1.0), rng.uniform(0, np.pi))
    mass += np.float32(0.12 * size) * head.cloud(rng, 14)
    fingers = mass + np.float32(rng.uniform(5, 10)) + np.float32(4) * head.cloud(rng, 12)
    edema = step(fingers, 2.5) * brain.inside * (1 - brain.csf) * step(head.depth - 4, 3)
    changed = signal + (np.float32(rng.uniform(0.84, 0.98)) - signal) * edema
    solid = np.float32(rng.uniform(0.66, 0.80)) + np.float32(0.05) * head.cloud(rng, 22)
    solid += (np.float32(rng.uniform(0.15, 0.4)) - solid) * step(mass - np.float32(0.45 * size), 2)
    share = head.share(mass) * brain.inside
    return changed + (solid - changed) * share, np.maximum(share, edema)


def _infarct(rng: np.random.Generator, head: Head, brain: Brain, side: float) -> Plane:
    """A wedge from the cortex inwards, the territory of an artery."""
    deep, half = rng.uniform(26, 42), rng.uniform(18, 30)
    along = head.along(side * rng.uniform(0.5, 2.6))
    # The wedge narrows inwards: angles on the skull already do, and its sides a little more.
    edge = np.minimum(np.float32(half) - along - np.float32(0.15) * np.maximum(head.depth, 0), deep - head.depth)
    edge = np.minimum(edge + np.float32(2) * head.cloud(rng, 14), head.side(side) - 3)
    taken: Plane = step(edge, 2.5) * brain.inside * (1 - brain.csf)
    return taken


def _spots(rng: np.random.Generator, head: Head, brain: Brain) -> Plane:
    """Small oval lesions in the white matter of both sides, their long axis away from the ventricles."""
    # Neither close to the skull nor in the bright caps.
    free = (brain.white > _HALF) & (np.minimum(head.depth - 14, 9 - np.abs(brain.ventricles + 12)) > 0)
    lesions = []
    for _ in range(int(rng.integers(5, 11))):
        x, y = head.somewhere(rng, free)
        half = rng.uniform(3, 5.5)
        lesions.append(
            head.ellipse(x, y, half, half * rng.uniform(0.6, 0.9), np.arctan2(y, x) + rng.uniform(-0.4, 0.4))
        )
    found: Plane = step(np.maximum.reduce(lesions), 1.2) * (1 - brain.csf)
    return found
