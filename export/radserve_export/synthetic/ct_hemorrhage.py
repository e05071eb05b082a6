"""Head phantoms: generated CT slices of four classes, without bleeding or with one of three kinds of it.

A phantom is a head with scalp, skull, grey and white matter, ventricles,
sulci, falx and the calcifications that everybody may have, with random
geometry, age and noise. A bleeding follows a reader's rules of thumb: an
epidural one bulges from the skull like a lens, a subdural one follows it like
a crescent, one inside the brain has a dark rim of oedema, and all push the
midline away. It is a drawing: what works on phantoms is not thereby shown to
work on patients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from radserve_export.synthetic import Sample, Split
from radserve_export.synthetic._ct_file import Slice, ct_file
from radserve_export.synthetic._drawing import STREAM, either, in_turn, label_map, step
from radserve_export.synthetic._head import fill_skull, place_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.synthetic._drawing import Plane
    from radserve_export.synthetic._head import Brain, Head

LABELS = ("normal", "intraparenchymal", "epidural", "subdural")

_WINDOW = (40, 80)
_GREY_HU, _WHITE_HU, _NUCLEI_HU, _CSF_HU, _EDEMA_HU = 38, -9, -3, 6, 22
_CALCIFIED_SHARE = 0.5


def make_sample(index: int, *, seed: int, split: Split) -> Sample:
    """Make one CT slice of a head, whatever came before it.

    Args:
        index: Its place in the sequence, from 0; it also gives the class.
        seed: As for ``generate``.
        split: As for ``generate``.

    Returns:
        A DICOM file with one of LABELS, and with the place of the blood.
    """
    label = index % len(LABELS)
    rng = np.random.default_rng([STREAM[split], seed, index])
    head = place_head(rng)
    hu, blood = _section(rng, head, LABELS[label])
    drawn = Slice(
        hu=hu + rng.standard_normal(hu.shape, dtype=np.float32) * np.float32(rng.uniform(3, 7)),
        body_part="HEAD",
        window=_WINDOW,
        spacing_mm=(head.spacing_mm, head.spacing_mm),
        thickness_mm=either(rng, 2.5, 5.0),
        age_years=int(rng.integers(20, 95)),
        sex=either(rng, "F", "M"),
        identity=f"ct_hemorrhage-{split.value}-{seed}-{index}",
    )
    return Sample(source=ct_file(drawn), label=LABELS[label], truth=label_map(blood, label))


generate = in_turn(make_sample)


def _section(rng: np.random.Generator, head: Head, label: str) -> tuple[Plane, NDArray[np.bool_] | None]:
    """Hounsfield units without noise, and where blood is."""
    side = either(rng, 1.0, -1.0)
    lesion, edema, shift_mm = _BLEEDINGS[label](rng, head, side) if label in _BLEEDINGS else (None, None, 0.0)
    brain = fill_skull(rng, head, shift_mm=-side * shift_mm)
    hu = _tissue(rng, head, brain)
    if edema is not None:
        hu += (np.float32(_EDEMA_HU) - hu) * step(edema, 3) * brain.inside
    if lesion is not None:
        blood = np.float32(rng.uniform(56, 80)) + 3 * head.cloud(rng, 18)
        hu += (blood - hu) * head.share(lesion)
    # Bone hardens the beam: what lies close to it looks brighter.
    hu += np.float32(rng.uniform(2, 9)) * np.exp(-np.maximum(head.depth, 0) / np.float32(6))
    covered = _cover(rng, head, hu, brain)
    return covered, None if lesion is None else (lesion > 0) & (head.depth > 0)


def _tissue(rng: np.random.Generator, head: Head, brain: Brain) -> Plane:
    """The inside of the skull, without blood."""
    hu = np.float32(rng.uniform(-3, 3) + _GREY_HU) + _WHITE_HU * brain.white + _NUCLEI_HU * brain.nuclei
    hu += np.float32(1.5) * head.cloud(rng, 12)
    hu += (np.float32(_CSF_HU) - hu) * brain.csf
    hu += (np.float32(rng.uniform(45, 60)) - hu) * brain.falx
    for x, y in ((0.0, 14.0), (19.0, 30.0), (-19.0, 30.0)):  # pineal gland, both choroid plexus
        if rng.random() < _CALCIFIED_SHARE:
            spot = head.ellipse(
                x + rng.uniform(-2, 2), y + rng.uniform(-3, 3), rng.uniform(1.5, 4), rng.uniform(1.5, 3)
            )
            hu += (np.float32(rng.uniform(70, 180)) - hu) * head.share(spot)
    return hu


def _cover(rng: np.random.Generator, head: Head, hu: Plane, brain: Brain) -> Plane:
    """Put skull, scalp, air and the head rest around the brain."""
    out = -head.depth
    diploe = np.exp(-(((out - head.bone_mm / 2) / np.float32(head.bone_mm / 4)) ** 2))
    bone = np.float32(rng.uniform(900, 1300)) * (1 - np.float32(0.5) * diploe)
    scalp = np.float32(rng.uniform(-20, 50))
    in_air = head.share(out - np.float32(head.bone_mm + head.scalp_mm))
    around = bone + (scalp - bone) * head.share(out - np.float32(head.bone_mm))
    rest = head.share(np.float32(4) - np.abs(out - np.float32(head.bone_mm + head.scalp_mm + rng.uniform(5, 10))))
    rest *= step(head.y - np.float32(rng.uniform(10, 40)), 5)
    air = np.float32(-1000) + np.float32(rng.uniform(100, 600)) * rest
    around += (air - around) * in_air
    covered: Plane = around + (hu - around) * brain.inside
    return covered


def _intraparenchymal(rng: np.random.Generator, head: Head, side: float) -> tuple[Plane, Plane | None, float]:
    """Blood anywhere in the brain's substance, with a rim of oedema; and how far it pushes the midline."""
    size = rng.uniform(8, 20)
    free = (head.depth > size + 5) & (head.side(side) > size * 0.6 + 3)
    x, y = head.somewhere(rng, free)
    flat, turn = rng.uniform(0.7, 1.0), rng.uniform(0, np.pi)
    ragged = head.ellipse(x, y, size, size * flat, turn) + np.float32(0.10 * size) * head.cloud(rng, 14)
    return ragged, ragged + np.float32(rng.uniform(3, 8)), max(0.0, size - 10) * 0.5


def _epidural(rng: np.random.Generator, head: Head, side: float) -> tuple[Plane, Plane | None, float]:
    """A lens between skull and dura, held by the sutures."""
    thick, half = rng.uniform(12, 22), rng.uniform(24, 34)
    along = head.along(side * rng.uniform(0.6, 2.6)) / np.float32(half)
    deep = np.maximum(head.depth, 0) / np.float32(thick)
    lens: Plane = (1 - np.sqrt(along * along + deep * deep)) * np.float32(thick)
    return lens, None, (thick - 10) * 0.5


def _subdural(rng: np.random.Generator, head: Head, side: float) -> tuple[Plane, Plane | None, float]:
    """A crescent that follows the skull across the sutures, but not the midline."""
    thick, half = rng.uniform(6.5, 12), rng.uniform(65, 100)
    along = head.along(side * rng.uniform(1.1, 2.0)) / np.float32(half)
    deep = np.float32(thick) * (1 - along * along) * (1 + np.float32(0.06) * head.cloud(rng, 8))
    crescent: Plane = np.minimum(deep - np.maximum(head.depth, 0), head.side(side) - 2)
    return crescent, None, thick * 0.6


_BLEEDINGS = {"intraparenchymal": _intraparenchymal, "epidural": _epidural, "subdural": _subdural}
