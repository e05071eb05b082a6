"""Breast phantoms: generated ultrasound images of four classes, in colour and with burned-in text.

A phantom has skin, fat with septa, glandular tissue with lobules of fat,
muscle, speckle, and a gain that the user of the device set. A lesion follows a
reader's rules of thumb: a cyst is black and brightens what lies behind it, a
circumscribed mass is grey, oval and wider than tall, a spiculated one is
ragged, taller than wide and throws a shadow. Above the picture lies a band in
which most devices burn in text; what it says has nothing to do with the class,
and a model must not see it. It is a drawing: what works on phantoms is not
thereby shown to work on patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radserve_export.synthetic import Sample, Split
from radserve_export.synthetic._drawing import STREAM, cloud, either, in_turn, label_map, step
from radserve_export.synthetic._us_file import BRIGHTEST, Scan, us_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.synthetic._drawing import Plane

LABELS = ("normal", "cyst", "circumscribed_mass", "spiculated_mass")

BAND = 0.11  # of the rows, at the top: nothing but text
_TEXT_SHARE = 0.75
_PLACES = ("PHANTOM UNIT", "SYNTHETIC LAB", "TEST SUITE", "DEMO ROOM")
_TINTS = ((255, 255, 255), (238, 246, 255), (255, 246, 230), (255, 240, 214))


def make_sample(index: int, *, seed: int, split: Split) -> Sample:
    """Make one ultrasound image of a breast, whatever came before it.

    Args:
        index: Its place in the sequence, from 0; it also gives the class.
        seed: As for ``generate``.
        split: As for ``generate``.

    Returns:
        A DICOM file with one of LABELS, and with the lesion's place.
    """
    scan, lesion = make_scan(index, seed=seed, split=split)
    label = index % len(LABELS)
    return Sample(source=us_file(scan), label=LABELS[label], truth=label_map(lesion, label))


generate = in_turn(make_sample)


def make_scan(index: int, *, seed: int, split: Split) -> tuple[Scan, NDArray[np.bool_] | None]:
    """Make what ``make_sample`` writes, and where its lesion lies.

    Args:
        index: Place in the sequence.
        seed: As for ``generate``.
        split: As for ``generate``.
    """
    rng = np.random.default_rng([STREAM[split], seed, index])
    field = _place_field(rng)
    echo, lesion = _breast(rng, field, LABELS[index % len(LABELS)])
    echo = _receive(rng, field, echo)
    # The band is black.
    band = np.zeros((field.band, echo.shape[1]), np.float32)
    levels = np.rint(np.concatenate([band, echo.clip(0, 1)]) * BRIGHTEST).astype(np.uint8)
    scan = Scan(
        levels=levels,
        tint=_TINTS[int(rng.integers(len(_TINTS)))],
        text=_text(rng) if rng.random() < _TEXT_SHARE else "",
        photometric=either(rng, "RGB", "PALETTE COLOR"),
        laterality=either(rng, "L", "R"),
        age_years=int(rng.integers(18, 90)),
        identity=f"breast_ultrasound-{split.value}-{seed}-{index}",
    )
    return scan, None if lesion is None else np.pad(lesion, ((field.band, 0), (0, 0)))


def _text(rng: np.random.Generator) -> str:
    """What a device might burn in, less what would name anybody."""
    place = _PLACES[int(rng.integers(len(_PLACES)))]
    return f"{place} {int(rng.integers(10_000)):04d} MI {rng.uniform(0.5, 1.5):.1f}"


@dataclass(frozen=True, kw_only=True)
class _Field:
    """Where each pixel of the picture lies.

    Attributes:
        x: From the middle of the probe, mm.
        z: Below the skin, mm.
        band: Rows above the picture.
    """

    x: Plane
    z: Plane
    band: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return self.z.shape[0], self.x.shape[1]

    def cloud(self, rng: np.random.Generator, cells: int) -> Plane:
        """Smooth noise of unit variance with about ``cells`` bumps along each axis."""
        return cloud(rng, self.shape, cells)


def _place_field(rng: np.random.Generator) -> _Field:
    rows, columns = int(rng.integers(190, 221)), int(rng.integers(190, 231))
    band = int(rows * BAND)
    wide, deep = rng.uniform(36, 42), rng.uniform(33, 40)
    return _Field(
        x=np.linspace(-wide / 2, wide / 2, columns, dtype=np.float32)[np.newaxis],
        z=np.linspace(0, deep, rows - band, dtype=np.float32)[:, np.newaxis],
        band=band,
    )


def _breast(rng: np.random.Generator, field: _Field, label: str) -> tuple[Plane, NDArray[np.bool_] | None]:
    """How strongly each place echoes, 0 to 1, and where the lesion is."""
    skin, fat_until = rng.uniform(1.2, 2.2), rng.uniform(5, 9)
    gland_until = rng.uniform(23, 28)
    fat = np.float32(rng.uniform(0.30, 0.40))
    gland = np.float32(rng.uniform(0.52, 0.66)) + np.float32(0.05) * field.cloud(rng, 9)
    septa = np.exp(-((field.cloud(rng, 7) / np.float32(0.12)) ** 2))
    echo = fat + np.float32(rng.uniform(0.10, 0.25)) * septa
    below = field.z + np.float32(1.2) * field.cloud(rng, 4)
    echo += (gland - echo) * step(below - np.float32(fat_until), 0.8)
    echo = _lobules(rng, field, echo, fat, (fat_until + 3, gland_until - 3))
    lesion: NDArray[np.bool_] | None = None
    if label != "normal":
        echo, lesion = _LESIONS[label](rng, field, echo, (fat_until, gland_until))
    fibres = np.float32(0.10) * np.cos(field.z * np.float32(rng.uniform(4, 6)) + field.cloud(rng, 4))
    muscle = np.float32(rng.uniform(0.32, 0.42)) + fibres
    echo = echo + (muscle - echo) * step(below - np.float32(gland_until), 0.8)
    echo += (np.float32(0.75) - echo) * step(np.float32(skin) - field.z, 0.3)
    return echo, lesion


def _lobules(
    rng: np.random.Generator, field: _Field, echo: Plane, fat: np.float32, between: tuple[float, float]
) -> Plane:
    """Lobules of fat in the gland: dark and oval as masses are, but with soft edges and as bright as fat."""
    for _ in range(int(rng.integers(0, 4))):
        wide = rng.uniform(3, 6)
        x, z = rng.uniform(-16, 16), rng.uniform(*between)
        edge = 1 - np.hypot(
            (field.x - np.float32(x)) / wide, (field.z - np.float32(z)) / (wide * rng.uniform(0.4, 0.6))
        )
        echo = echo + (fat - echo) * step(edge.astype(np.float32), 0.4)
    return echo


@dataclass(frozen=True, kw_only=True)
class _Outline:
    """A lesion's outline.

    Attributes:
        inside: About how far inside it each pixel lies, mm; negative outside.
        behind: Share of each pixel that lies in the beam behind it, fading with depth.
    """

    inside: Plane
    behind: Plane


def _outline(
    rng: np.random.Generator, field: _Field, between: tuple[float, float], *, half: float, tall: float, ragged: float
) -> _Outline:
    """An oval in the gland, ``half`` mm to each side, ``tall`` times that up and down, with spicules or without."""
    high = half * tall
    x, z = rng.uniform(-12, 12), rng.uniform(between[0] + high + 0.5, max(between[0] + high + 1, between[1] - high))
    dx, dz = field.x - np.float32(x), field.z - np.float32(z)
    turn = rng.uniform(-0.25, 0.25)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = (dx * cos + dz * sin) / np.float32(half), (dz * cos - dx * sin) / np.float32(high)
    angle = np.arctan2(across, along)
    spikes = np.float32(1) + np.float32(0.03) * np.cos(2 * angle + np.float32(rng.uniform(0, 6)))
    if ragged:
        count = int(rng.integers(6, 10))
        wave = np.cos(count * angle + np.float32(rng.uniform(0, 6)) + np.float32(0.8) * field.cloud(rng, 5))
        spikes = spikes + np.float32(ragged) * (np.maximum(wave, 0) ** 3 - np.float32(0.3))
    inside: Plane = (spikes - np.hypot(along, across)) * np.float32(min(half, high))
    beam = step((np.float32(half) * np.float32(0.9) - np.abs(dx)).astype(np.float32), 1.0)
    behind: Plane = (
        beam * step(dz - np.float32(high) * np.float32(0.6), 1.0) * np.exp(-np.maximum(dz, 0) / np.float32(18))
    )
    return _Outline(inside=inside, behind=behind)


def _cyst(
    rng: np.random.Generator, field: _Field, echo: Plane, between: tuple[float, float]
) -> tuple[Plane, NDArray[np.bool_]]:
    drawn = _outline(rng, field, between, half=rng.uniform(3.2, 7), tall=rng.uniform(0.6, 0.95), ragged=0)
    echo = echo + np.float32(rng.uniform(0.15, 0.3)) * drawn.behind
    echo += (np.float32(rng.uniform(0.02, 0.10)) - echo) * step(drawn.inside, 0.25)
    return echo, drawn.inside > 0


def _circumscribed_mass(
    rng: np.random.Generator, field: _Field, echo: Plane, between: tuple[float, float]
) -> tuple[Plane, NDArray[np.bool_]]:
    drawn = _outline(rng, field, between, half=rng.uniform(4.5, 8), tall=rng.uniform(0.5, 0.72), ragged=0)
    echo = echo + np.float32(rng.uniform(-0.02, 0.08)) * drawn.behind
    grey = np.float32(rng.uniform(0.20, 0.28)) + np.float32(0.02) * field.cloud(rng, 20)
    echo += (grey - echo) * step(drawn.inside, 0.3)
    return echo, drawn.inside > 0


def _spiculated_mass(
    rng: np.random.Generator, field: _Field, echo: Plane, between: tuple[float, float]
) -> tuple[Plane, NDArray[np.bool_]]:
    drawn = _outline(
        rng, field, between, half=rng.uniform(3.5, 6), tall=rng.uniform(1.0, 1.4), ragged=rng.uniform(0.35, 0.6)
    )
    echo = echo - np.float32(rng.uniform(0.2, 0.4)) * drawn.behind
    halo = np.exp(-(((drawn.inside + 0.8) / np.float32(0.8)) ** 2)) * (1 - drawn.behind)
    echo += np.float32(rng.uniform(0.05, 0.18)) * halo
    grey = np.float32(rng.uniform(0.14, 0.26)) + np.float32(0.03) * field.cloud(rng, 20)
    echo += (grey - echo) * step(drawn.inside, 0.4)
    return echo, drawn.inside > 0


_LESIONS = {"cyst": _cyst, "circumscribed_mass": _circumscribed_mass, "spiculated_mass": _spiculated_mass}


def _receive(rng: np.random.Generator, field: _Field, echo: Plane) -> Plane:
    """Speckle, gain over depth, and the probe's poor contact at an edge."""
    noise = rng.standard_normal((2, *field.shape), dtype=np.float32)
    noise = noise + np.roll(noise, 1, 2) + np.roll(noise, -1, 2)  # speckle is wider than tall
    speckle = np.log(np.hypot(noise[0], noise[1]) / np.float32(1.73) + np.float32(0.1))
    gain = np.float32(rng.uniform(-0.08, 0.08)) + np.float32(rng.uniform(-0.2, 0.1)) * field.z / np.float32(40)
    received = echo * (1 + np.float32(rng.uniform(0.10, 0.2)) * speckle) + gain * step(echo - 0.1, 0.1)
    edge = either(rng, 1, -1) * field.x - np.float32(rng.uniform(15, 24))
    contact: Plane = received * (1 - np.float32(0.8) * step(edge, 1.5))
    return contact
