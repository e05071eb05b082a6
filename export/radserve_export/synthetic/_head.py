"""An axial section through a head, in millimetres: what CT and MR phantoms of it have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radserve_export.synthetic._drawing import cloud, step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.synthetic._drawing import Plane

# Where a parametric angle on the skull becomes a length along it.
_RADIUS_MM = 75


@dataclass(frozen=True, kw_only=True)
class Head:
    """The skull and where each pixel lies.

    Attributes:
        x: From the middle to the patient's left (right in the picture), mm.
        y: From the middle to the back, mm.
        depth: Below the skull's inner table, mm; negative outside.
        angle: Around the brain, 0 at the forehead, positive at the patient's left, -pi to pi.
        spacing_mm: Between pixels.
        bone_mm: Thickness of the skull.
        scalp_mm: Thickness of what covers it.
    """

    x: Plane
    y: Plane
    depth: Plane
    angle: Plane
    spacing_mm: float
    bone_mm: float
    scalp_mm: float

    def share(self, edge_mm: Plane) -> Plane:
        """How much of each pixel lies inside an edge, given by the distance to it (positive inside)."""
        return step(edge_mm, 0.7 * self.spacing_mm)

    def ellipse(self, x: float, y: float, half_x: float, half_y: float, turn: float = 0.0) -> Plane:
        """About how far inside an ellipse each pixel lies, mm; negative outside."""
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        along, across = (dx * cos + dy * sin) / np.float32(half_x), (dy * cos - dx * sin) / np.float32(half_y)
        edge: Plane = (1 - np.sqrt(along * along + across * across)) * np.float32(min(half_x, half_y))
        return edge

    def along(self, angle: float) -> Plane:
        """Distance from an angle, along the skull, mm."""
        turn = np.abs(self.angle - np.float32(angle))
        length: Plane = np.minimum(turn, np.float32(2 * np.pi) - turn) * np.float32(_RADIUS_MM)
        return length

    def side(self, sign: float) -> Plane:
        """About how far on one side of the midline each pixel lies, mm: 1 is the patient's left, -1 the right."""
        return self.x * np.float32(sign)

    def cloud(self, rng: np.random.Generator, cells: int) -> Plane:
        """Smooth noise of unit variance with about ``cells`` bumps along each axis."""
        return cloud(rng, (self.depth.shape[0], self.depth.shape[1]), cells)

    def off_middle(self, distance_mm: float, softness_mm: float) -> Plane:
        """1 where a pixel lies farther than so to the front or the back of the middle."""
        far: Plane = np.abs(self.y)
        return step(far - np.float32(distance_mm), softness_mm)

    def somewhere(self, rng: np.random.Generator, free: NDArray[np.bool_]) -> tuple[float, float]:
        """Place ``x`` and ``y`` of a random pixel among those that are free."""
        places = np.flatnonzero(free)
        place = places[int(rng.integers(len(places)))]
        return float(self.x.flat[place]), float(self.y.flat[place])


@dataclass(frozen=True, kw_only=True)
class Brain:
    """What fills the skull: the share of it in each pixel, 0 to 1.

    Attributes:
        inside: The skull's inside.
        csf: Ventricles, sulci and fissures.
        ventricles: Distance inside the lateral ventricles, mm.
        white: White matter.
        nuclei: Basal ganglia and thalami.
        falx: The falx.
    """

    inside: Plane
    csf: Plane
    ventricles: Plane
    white: Plane
    nuclei: Plane
    falx: Plane


def place_head(rng: np.random.Generator) -> Head:
    """Place a head on a pixel grid: never quite straight or in the middle."""
    spacing = round(float(rng.uniform(1.25, 1.5)), 3)
    rows, columns = int(rng.integers(150, 171)), int(rng.integers(140, 161))
    across = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * np.float32(spacing)
    down = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * np.float32(spacing)
    x, y = across[None] - np.float32(rng.uniform(-6, 6)), down[:, None] - np.float32(rng.uniform(-6, 6))
    turn = rng.uniform(-0.25, 0.25)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    x, y = x * cos + y * sin, y * cos - x * sin
    half_x, half_y = np.float32(rng.uniform(61, 70)), np.float32(rng.uniform(77, 87))
    # Heads are wider behind the ears.
    wide = half_x * (1 + np.float32(rng.uniform(0.02, 0.07)) * y / half_y)
    r = np.sqrt((x / wide) ** 2 + (y / half_y) ** 2) + np.float32(1e-6)
    slope = np.sqrt((x / wide**2) ** 2 + (y / half_y**2) ** 2) / r + np.float32(1e-6)
    return Head(
        x=x,
        y=y,
        depth=np.minimum((1 - r) / slope, half_x).astype(np.float32),
        angle=np.arctan2(x / wide, -y / half_y).astype(np.float32),
        spacing_mm=spacing,
        bone_mm=rng.uniform(5, 8),
        scalp_mm=rng.uniform(4, 8),
    )


def fill_skull(rng: np.random.Generator, head: Head, *, shift_mm: float) -> Brain:
    """Draw a brain.

    Args:
        rng: Of the phantom.
        head: The skull.
        shift_mm: How far a mass pushes the midline to the patient's left.
    """
    wasted = rng.uniform(0, 1)  # from a young brain to an old one
    # What is pushed gives way in the middle and stays at the skull.
    pushed = np.float32(shift_mm) * step(head.depth - 25, 25)
    ventricles = _ventricles(rng, head, pushed, wasted)
    folds = np.abs(head.cloud(rng, 20) + np.float32(0.5) * head.cloud(rng, 34))
    near = step(np.float32(8 + 8 * wasted) - head.depth, 6)
    sulci = step(np.float32(0.10 + 0.18 * wasted) - folds, 0.12) * near
    rim = step(np.float32(0.8 + 2.0 * wasted) - head.depth, 1.2)
    gap = np.abs(head.x - pushed) - np.float32(0.6 + 1.2 * wasted)
    fissure = head.share(-gap) * head.off_middle(rng.uniform(30, 40), 8)
    sylvian = np.maximum(
        *(head.ellipse(side * 47, rng.uniform(-14, -4), 13, 1.5 + 3 * wasted, side * 0.5) for side in (-1, 1))
    )
    csf = np.maximum.reduce([head.share(ventricles), sulci, rim, fissure, head.share(sylvian)])
    nuclei = np.maximum(*(head.ellipse(side * 21, rng.uniform(-8, 0), 8, 17, side * 0.35) for side in (-1, 1)))
    nuclei_share = step(nuclei, 2.5)
    white = step(head.depth - np.float32(9) + 3 * head.cloud(rng, 16), 5) * (1 - nuclei_share)
    falx = head.share(np.float32(0.9) - np.abs(head.x - pushed)) * head.off_middle(38, 5)
    return Brain(
        inside=head.share(head.depth),
        csf=csf,
        ventricles=ventricles,
        white=white * (1 - csf),
        nuclei=nuclei_share * (1 - csf),
        falx=falx,
    )


def _ventricles(rng: np.random.Generator, head: Head, pushed: Plane, wasted: float) -> Plane:
    """Distance inside the horns of both lateral ventricles."""
    moved = Head(
        x=head.x - pushed,
        y=head.y,
        depth=head.depth,
        angle=head.angle,
        spacing_mm=head.spacing_mm,
        bone_mm=head.bone_mm,
        scalp_mm=head.scalp_mm,
    )
    wide, level = 3.0 + 5.0 * wasted, rng.uniform(-4, 4)
    horns = []
    for side in (-1, 1):
        size = wide * rng.uniform(0.85, 1.15)
        horns.append(moved.ellipse(side * (7 + size), level - 22, size, 15 + 5 * wasted, side * 0.35))
        horns.append(moved.ellipse(side * (11 + size), level + 24, size * 1.1, 17 + 5 * wasted, side * -0.35))
    inside: Plane = np.maximum.reduce(horns)
    return inside
