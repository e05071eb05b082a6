"""Abdomen phantoms: generated CT slices through the liver, with the true outlines of liver and lesions.

A phantom is a body in millimetres with fat, muscle, spine, great vessels,
stomach, spleen, gallbladder and a liver with vessels; three of four livers
hold one to three hypodense lesions, each wholly inside. Organs have the
Hounsfield units of the portal venous phase, but it is a drawing: what works on
phantoms is not thereby shown to work on patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radserve_export.synthetic import Sample, Split
from radserve_export.synthetic._ct_file import Slice, ct_file
from radserve_export.synthetic._drawing import STREAM, cloud, either, in_turn, step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.synthetic._drawing import Plane

LABELS = ("liver", "liver_lesion")

_WINDOW = (60, 300)
_MARGIN_MM = 4  # of healthy liver around each lesion
_TRIES = 60


def make_sample(index: int, *, seed: int, split: Split) -> Sample:
    """Make one CT slice, whatever came before it.

    Args:
        index: Its place in the sequence, from 0.
        seed: As for ``generate``.
        split: As for ``generate``.

    Returns:
        A DICOM file with its truth; the label is ``liver_lesion`` where there is one, else ``liver``.
    """
    drawn, truth = make_slice(index, seed=seed, split=split)
    return Sample(source=ct_file(drawn), label=LABELS[int(truth.max()) - 1], truth=truth)


generate = in_turn(make_sample)


def make_slice(index: int, *, seed: int, split: Split) -> tuple[Slice, NDArray[np.uint8]]:
    """Make what ``make_sample`` writes, and its true label map on the slice's own grid.

    Args:
        index: Place in the sequence.
        seed: As for ``generate``.
        split: As for ``generate``.
    """
    rng = np.random.default_rng([STREAM[split], seed, index])
    body = _place_body(rng)
    hu = _trunk(rng, body)
    liver, gallbladder = _liver(rng, body)
    lesions = _lesions(rng, body, liver)
    hu = _abdomen(rng, body, hu)
    hu = _parenchyma(rng, body, hu, liver, lesions)
    hu = _paint(hu, gallbladder, rng.uniform(5, 20), body)
    hu += rng.standard_normal(hu.shape, dtype=np.float32) * np.float32(rng.uniform(8, 18))
    truth = (liver > 0).astype(np.uint8)
    for lesion in lesions:
        truth[lesion > 0] = 2
    drawn = Slice(
        hu=hu,
        body_part="ABDOMEN",
        window=_WINDOW,
        spacing_mm=(body.spacing, body.spacing),
        thickness_mm=either(rng, 3.0, 5.0),
        age_years=int(rng.integers(20, 90)),
        sex=either(rng, "F", "M"),
        identity=f"ct-{split.value}-{seed}-{index}",
    )
    return drawn, truth


@dataclass(frozen=True, kw_only=True)
class _Body:
    """Where things are, millimetres.

    Attributes:
        x: Of each pixel, from the midline to the patient's left (right in the picture).
        y: Of each pixel, from the middle of the body to the back.
        half_x: Half the body's width.
        half_y: Half its depth.
        fat: Thickness of the fat below the skin.
        spacing: Between pixels.
    """

    x: Plane
    y: Plane
    half_x: float
    half_y: float
    fat: float
    spacing: float

    def ellipse(self, x: float, y: float, half_x: float, half_y: float, turn: float = 0.0) -> Plane:
        """About how far inside an ellipse each pixel lies, negative outside."""
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        along, across = (dx * cos + dy * sin) / np.float32(half_x), (dy * cos - dx * sin) / np.float32(half_y)
        edge: Plane = (1 - np.sqrt(along * along + across * across)) * np.float32(min(half_x, half_y))
        return edge

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return self.x.shape[0], self.x.shape[1]

    @property
    def wall(self) -> Plane:
        """The abdominal wall and what is inside it."""
        return self.ellipse(0, 0, self.half_x - self.fat, self.half_y - self.fat)

    @property
    def cavity(self) -> Plane:
        """The space inside the abdominal wall."""
        wall = self.fat + 10
        return self.ellipse(0, 0, self.half_x - wall, self.half_y - wall)


def _place_body(rng: np.random.Generator) -> _Body:
    rows, columns = int(rng.integers(112, 137)), int(rng.integers(144, 177))
    half_x, half_y = rng.uniform(150, 185), rng.uniform(105, 130)
    spacing = round(float(max(2 * half_x / columns, 2 * half_y / rows) * rng.uniform(1.04, 1.15)), 3)
    across = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * np.float32(spacing)
    down = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * np.float32(spacing)
    x, y = across[None] - np.float32(rng.uniform(-4, 4)), down[:, None] - np.float32(rng.uniform(-4, 4))
    turn = rng.uniform(-0.06, 0.06)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return _Body(
        x=x * cos + y * sin,
        y=y * cos - x * sin,
        half_x=half_x,
        half_y=half_y,
        fat=rng.uniform(10, 28),
        spacing=spacing,
    )


def _paint(hu: Plane, edge: Plane, value: float | Plane, body: _Body) -> Plane:
    """Put something over what is drawn so far; pixels on its border hold a part of each."""
    share = step(edge, 0.6 * body.spacing)
    painted: Plane = hu + (np.asarray(value, np.float32) - hu) * share
    return painted


def _trunk(rng: np.random.Generator, body: _Body) -> Plane:
    """Air, skin, fat, the muscles of the wall with ribs, and the fat inside."""
    hu = np.full(body.shape, -1000, np.float32)
    hu = _paint(hu, body.ellipse(0, 0, body.half_x, body.half_y), rng.uniform(-110, -95), body)
    hu = _paint(hu, body.wall, rng.uniform(45, 65), body)
    bent = body.half_x - body.fat - 5, body.half_y - body.fat - 5
    for angle in np.arange(0.25, np.pi, rng.uniform(0.4, 0.5)):
        for side in (-1, 1):
            x, y = side * bent[0] * np.sin(angle), -bent[1] * np.cos(angle)
            hu = _paint(hu, body.ellipse(x, y, 9, 3.5, angle * side), rng.uniform(250, 400), body)
    return _paint(hu, body.cavity, rng.uniform(-105, -85), body)


def _abdomen(rng: np.random.Generator, body: _Body, hu: Plane) -> Plane:
    """Spine, muscles beside it, great vessels, spleen and stomach."""
    back = body.half_y * 0.50
    muscle = rng.uniform(45, 65)
    for side in (-1, 1):
        hu = _paint(hu, np.minimum(body.ellipse(side * 38, back + 18, 26, 20), body.wall), muscle, body)
    hu = _paint(hu, body.ellipse(0, back, 24, 20), rng.uniform(180, 260), body)
    hu = _paint(hu, body.ellipse(0, back + 26, 9, 7), 30, body)
    hu = _paint(hu, body.ellipse(12, back - 32, 11, 11), rng.uniform(140, 190), body)
    hu = _paint(hu, body.ellipse(-20, back - 30, 12, 10), rng.uniform(110, 150), body)
    spleen = body.ellipse(
        0.62 * body.half_x, 0.30 * body.half_y, rng.uniform(40, 55), rng.uniform(18, 26), rng.uniform(0.8, 1.3)
    )
    hu = _paint(hu, np.minimum(spleen, body.cavity), rng.uniform(100, 130), body)
    center = rng.uniform(0.36, 0.46) * body.half_x, rng.uniform(-0.35, -0.2) * body.half_y
    stomach: Plane = np.minimum(body.ellipse(*center, rng.uniform(36, 48), rng.uniform(26, 34), 0.4), body.cavity)
    hu = _paint(hu, stomach, 50, body)
    hu = _paint(hu, stomach - 4, rng.uniform(0, 40), body)
    level = center[1] - rng.uniform(0, 20)
    return _paint(hu, np.minimum(stomach - 4, np.float32(level) - body.y), -900, body)


def _liver(rng: np.random.Generator, body: _Body) -> tuple[Plane, Plane]:
    """How far inside liver and gallbladder each pixel lies."""
    right = body.ellipse(
        rng.uniform(-0.50, -0.42) * body.half_x,
        rng.uniform(-0.02, 0.08) * body.half_y,
        rng.uniform(62, 76),
        rng.uniform(0.62, 0.76) * body.half_y,
        rng.uniform(-0.15, 0.25),
    )
    left = body.ellipse(
        rng.uniform(-0.12, 0.0) * body.half_x,
        rng.uniform(-0.48, -0.38) * body.half_y,
        rng.uniform(60, 85),
        rng.uniform(22, 32),
        rng.uniform(-0.1, 0.2),
    )
    liver = np.maximum(right, left) + np.float32(2.0) * cloud(rng, body.shape, 9)
    liver = np.minimum(liver, body.cavity - 3)
    back = body.half_y * 0.50
    for keep_off in (
        body.ellipse(0, back, 30, 26),
        body.ellipse(12, back - 32, 15, 15),
        body.ellipse(-20, back - 30, 14, 12),
    ):
        liver = np.minimum(liver, -keep_off)
    gallbladder = body.ellipse(
        rng.uniform(-0.30, -0.18) * body.half_x, rng.uniform(-0.12, 0.05) * body.half_y, 22, rng.uniform(10, 15), 0.9
    )
    return np.minimum(liver, -gallbladder - 2), gallbladder


def _lesions(rng: np.random.Generator, body: _Body, liver: Plane) -> list[Plane]:
    """How far inside each lesion each pixel lies; none reaches the liver's border or another lesion."""
    found: list[Plane] = []
    free = liver > _MARGIN_MM
    for _ in range(int(rng.choice([0, 1, 1, 2, 3]))):
        for _ in range(_TRIES):
            places = np.flatnonzero(free)
            if not places.size:
                break
            place = places[int(rng.integers(places.size))]
            x, y = float(body.x.flat[place]), float(body.y.flat[place])
            size = rng.uniform(13, 26)
            angle = np.arctan2(body.y - np.float32(y), body.x - np.float32(x))
            bumps = sum(rng.uniform(0, 0.07) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 4))
            lesion = np.float32(size) * (1 + bumps) - np.hypot(body.x - np.float32(x), body.y - np.float32(y))
            if free[lesion > -_MARGIN_MM].all():
                found.append(lesion.astype(np.float32))
                free &= lesion < -2 * _MARGIN_MM
                break
    return found


def _parenchyma(rng: np.random.Generator, body: _Body, hu: Plane, liver: Plane, lesions: list[Plane]) -> Plane:
    """The liver with its veins, and what the lesions replace."""
    enhanced = np.float32(rng.uniform(88, 122))
    veins = step(np.float32(0.14) - np.abs(cloud(rng, body.shape, 6)), 0.1) * step(liver - 14, 4)
    tissue = enhanced + np.float32(rng.uniform(20, 40)) * veins + 4 * cloud(rng, body.shape, 14)
    hu = _paint(hu, liver, tissue, body)
    for lesion in lesions:
        inside = enhanced - np.float32(rng.uniform(35, 65)) - np.float32(rng.uniform(0, 20)) * step(lesion - 8, 6)
        hu = _paint(hu, lesion, inside + 3 * cloud(rng, body.shape, 20), body)
    return hu
