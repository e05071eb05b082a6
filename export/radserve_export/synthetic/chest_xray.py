"""Chest phantoms: generated radiographs of six classes, as DX DICOM files.

A phantom is a body, two lung fields with vessels, a heart, a spine, ribs,
clavicles and domes of the diaphragm, with random geometry, exposure and
noise; its class adds a lesion or enlarges the heart. It looks like a
radiograph and follows a reader's rules of thumb (cardiothoracic ratio, blunted
costophrenic angle, lung markings that end at the pleural line), but it is a
drawing: what works on phantoms is not thereby shown to work on patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from radserve_export.synthetic import Sample, Split
from radserve_export.synthetic._drawing import STREAM, cloud, either, in_turn, label_map, step
from radserve_export.synthetic._dx_file import MAXIMUM, Radiograph, dx_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.synthetic._drawing import Plane

LABELS = ("normal", "opacity", "nodule", "effusion", "pneumothorax", "cardiomegaly")

_PA_SHARE = 0.7
_SOFT_TISSUE = 0.62
_LUNG_CONTRAST = 0.40
_AERATED = 0.85
# From here on a lesion counts as one, in the share of the air it takes and of the lung it lies in.
_VISIBLE = 0.3


def make_sample(index: int, *, seed: int, split: Split) -> Sample:
    """Make one chest radiograph, whatever came before it.

    Args:
        index: Its place in the sequence, from 0.
        seed: As for ``generate``.
        split: As for ``generate``.

    Returns:
        A DICOM file with one of LABELS, and with the lesion's place.
    """
    radiograph, lesion = _draw(index, seed=seed, split=split)
    label = LABELS[index % len(LABELS)]
    return Sample(source=dx_file(radiograph), label=label, truth=label_map(lesion, LABELS.index(label)))


generate = in_turn(make_sample)


def make_radiograph(index: int, *, seed: int, split: Split) -> Radiograph:
    """Make what ``make_sample`` writes.

    Args:
        index: Place in the sequence; it also gives the class.
        seed: As for ``generate``.
        split: As for ``generate``.
    """
    return _draw(index, seed=seed, split=split)[0]


def _draw(index: int, *, seed: int, split: Split) -> tuple[Radiograph, NDArray[np.bool_] | None]:
    """A radiograph, and where its lesion lies."""
    rng = np.random.default_rng([STREAM[split], seed, index])
    rows, columns = int(rng.integers(256, 321)), int(rng.integers(256, 289))
    view: Literal["PA", "AP"] = "PA" if rng.random() < _PA_SHARE else "AP"
    label = LABELS[index % len(LABELS)]
    picture, lesion = _phantom(rng, label, portable=view == "AP", shape=(rows, columns))
    display = _expose(picture, rng)
    # Every file has its own scale of stored values, which only its window tells.
    width = int(rng.integers(1800, 3000))
    low = int(rng.integers(200, MAXIMUM - width - 200))
    values = np.clip(np.rint(low + display * width), 0, MAXIMUM).astype(np.uint16)
    radiograph = Radiograph(
        values=values,
        window=(low + width // 2, width),
        view=view,
        photometric=either(rng, "MONOCHROME1", "MONOCHROME2"),
        spacing_mm=round(float(rng.uniform(380, 430)) / columns, 3),
        age_years=int(rng.integers(20, 90)),
        sex=either(rng, "F", "M"),
        identity=f"{split.value}-{seed}-{index}",
    )
    return radiograph, lesion


@dataclass(frozen=True, kw_only=True)
class _Body:
    """Coordinates in the body, and what is drawn so far.

    Attributes:
        u: From the midline to the patient's left (right in the picture), 1 is half the picture's width.
        v: Downwards, in the same unit.
        air: How much aerated lung lies behind a pixel, 0 to 1.
        markings: How much of the lung's vessels shows, 0 to 1.
        depth: How deep inside its lung a pixel lies, from 0 at the chest wall to 1; negative outside.
        floor: Height ``v`` of the diaphragm.
        side: -1 at the patient's right, 1 at the left.
    """

    u: Plane
    v: Plane
    air: Plane
    markings: Plane
    depth: Plane
    floor: Plane
    side: Plane


def _phantom(
    rng: np.random.Generator, label: str, *, portable: bool, shape: tuple[int, int]
) -> tuple[Plane, NDArray[np.bool_] | None]:
    """Draw a phantom: display values, about 0 to 1, before exposure and noise; and its lesion, if it has a place."""
    u, v = _coordinates(rng, shape)
    ratio = rng.uniform(0.57, 0.68) if label == "cardiomegaly" else rng.uniform(0.40, 0.50)
    body, heart = _lungs_and_heart(rng, u, v, ratio=ratio + (0.02 if portable else 0), portable=portable)
    air, markings, added, taken = body.air, body.markings, np.zeros_like(u), None
    if label in _TAKES_AIR:
        taken = _TAKES_AIR[label](rng, body)
        air = air * (1 - taken)
    elif label == "pneumothorax":
        taken, line = _pneumothorax(rng, body)
        air, markings, added = air * (1 + np.float32(rng.uniform(0.2, 0.35)) * taken), markings * (1 - taken), line
    vessels = 0.7 * cloud(rng, shape, 38) + 0.7 * cloud(rng, shape, 20)
    hilum = np.exp(-(((np.abs(u) - 0.22) / 0.2) ** 2) - ((v + 0.02) / 0.28) ** 2)
    air = air * (1 - markings * ((0.035 + 0.10 * hilum) * vessels + 0.25 * hilum))
    picture = _SOFT_TISSUE + 0.05 * heart - np.float32(_LUNG_CONTRAST * rng.uniform(0.85, 1.15)) * air
    picture += _skeleton(rng, body, portable=portable) + _soft_tissue(rng, body, shape) + added
    # Air around the body: above the shoulders and beside the chest.
    outside = np.maximum(np.abs(u) - (1.02 - 0.06 * v * v), 0.42 * np.abs(u) * np.sqrt(np.abs(u)) - 0.90 - v)
    neck = step(0.24 - np.abs(u), 0.04)
    drawn: Plane = picture * (1 - step(outside, 0.04) * (1 - neck)) + 0.02
    return drawn, None if taken is None else (taken > _VISIBLE) & (body.air > _VISIBLE)


def _coordinates(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Plane, Plane]:
    """Where each pixel lies in the body: a patient is never quite straight or in the middle."""
    rows, columns = shape
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    angle, scale = rng.uniform(-0.06, 0.06), rng.uniform(0.92, 1.10)
    x, y = x - np.float32(rng.uniform(-0.07, 0.07)), y - np.float32(rng.uniform(-0.08, 0.08))
    cos, sin = np.float32(np.cos(angle) * scale), np.float32(np.sin(angle) * scale)
    return x * cos + y * sin, (y * cos - x * sin) * np.float32(rng.uniform(0.95, 1.06))


def _lungs_and_heart(
    rng: np.random.Generator, u: Plane, v: Plane, *, ratio: float, portable: bool
) -> tuple[_Body, Plane]:
    """Lung fields down to the diaphragm, less a heart of the given cardiothoracic ratio."""
    left = u > 0
    m = np.abs(u)
    width = np.where(left, np.float32(rng.uniform(0.35, 0.38)), np.float32(rng.uniform(0.36, 0.39)))
    slope = np.float32(rng.uniform(0.06, 0.12))
    across = np.abs((m - 0.455 - slope * v) / width)
    along = np.abs((v - 0.10) / np.float32(rng.uniform(0.88, 0.95)))
    # A superellipse of exponent 2.5, between an ellipse and a box.
    depth = 1 - (across * across * np.sqrt(across) + along * along * np.sqrt(along)) ** np.float32(0.4)
    base = rng.uniform(0.52, 0.66) - (0.07 if portable else 0)
    domes = np.where(left, np.float32(base + rng.uniform(0.0, 0.06)), np.float32(base - rng.uniform(0.0, 0.04)))
    floor = domes - rng.uniform(0.14, 0.2) * (1 - ((m - 0.40) / 0.44) ** 2)
    lung = step(depth, 0.05) * step(floor - v, 0.03)
    half = 0.82 * ratio
    lean = u - np.float32(rng.uniform(0.22, 0.30) * half) - 0.25 * (v - 0.3)
    height = v - np.float32(base - rng.uniform(0.22, 0.27))
    heart = step(1.0 - np.sqrt((lean / half) ** 2 + (height / (0.16 + 0.55 * half)) ** 2), 0.10)
    lung = lung * (1 - np.float32(rng.uniform(0.85, 0.95)) * heart)
    return _Body(u=u, v=v, air=lung, markings=lung, depth=depth, floor=floor, side=np.sign(u)), heart


def _skeleton(rng: np.random.Generator, body: _Body, *, portable: bool) -> Plane:
    """Ribs, clavicles, spine and the trachea's air."""
    m, v = np.abs(body.u), body.v
    spacing, phase = rng.uniform(0.15, 0.18), rng.uniform(0, 1)
    chest = step(body.depth + 0.10, 0.06) * step(0.75 - v, 0.1)
    behind = step(np.cos(2 * np.pi * ((v - 0.30 * m * m - 0.06 * m) / spacing + phase)) - 0.1, 0.4)
    front = step(
        np.cos(2 * np.pi * ((v - 0.55 * (1 - m) * np.sqrt(np.abs(1 - m))) / (1.2 * spacing) + phase)) - 0.3, 0.4
    )
    strength = np.float32(rng.uniform(0.04, 0.08))
    bones = chest * strength * (behind + 0.6 * front * step(m - 0.28, 0.08))
    tilt, level = rng.uniform(0.08, 0.25), -0.66 - (0.07 if portable else 0) + rng.uniform(-0.03, 0.03)
    clavicle = np.abs(v - level + tilt * m - 0.035 * np.sin(6 * m))
    bones += np.float32(rng.uniform(0.08, 0.13)) * step(0.032 - clavicle, 0.015) * step(0.37 - np.abs(m - 0.42), 0.04)
    discs = 0.8 + 0.2 * step(np.cos(2 * np.pi * (v / 0.13 + phase)), 0.6)
    bones += np.float32(rng.uniform(0.08, 0.14)) * step(0.10 - m, 0.03) * discs
    trachea = step(0.055 - np.abs(body.u - 0.01), 0.025) * step(-0.22 - v, 0.05)
    return bones - 0.12 * trachea


def _soft_tissue(rng: np.random.Generator, body: _Body, shape: tuple[int, int]) -> Plane:
    """What lies over the lungs in everybody: breast or muscle shadows, the abdomen, an uneven field."""
    m, v = np.abs(body.u), body.v
    fold: Plane = 1.0 - np.sqrt(
        ((m - rng.uniform(0.42, 0.52)) / 0.34) ** 2 + ((v - rng.uniform(0.18, 0.34)) / 0.30) ** 2
    )
    tissue: Plane = np.float32(rng.uniform(0, 0.10)) * step(fold, 0.12)
    tissue += np.float32(rng.uniform(0.04, 0.10)) * step(v - body.floor, 0.03)
    stomach: Plane = 1.0 - np.sqrt(((body.u - 0.42) / 0.16) ** 2 + ((v - body.floor - 0.10) / 0.06) ** 2)
    tissue -= np.float32(max(0.0, rng.uniform(-0.15, 0.15))) * step(stomach, 0.3)
    field = np.float32(rng.uniform(-0.05, 0.05)) * body.u + np.float32(rng.uniform(-0.05, 0.05)) * v
    tissue += field + 0.012 * cloud(rng, shape, 7) + 0.012 * cloud(rng, shape, 26)
    return tissue


def _somewhere(rng: np.random.Generator, body: _Body, *, margin: int, above_floor: float) -> tuple[float, float]:
    """A random place in aerated lung, ``margin`` pixels from where it ends, and so far above the diaphragm."""
    free = (body.air > _AERATED) & (body.floor - body.v > above_floor)
    for axis in (0, 1):
        free &= np.roll(free, margin, axis) & np.roll(free, -margin, axis)
    places = np.flatnonzero(free)
    place = places[int(rng.integers(len(places)))]
    return float(body.u.flat[place]), float(body.v.flat[place])


def _opacity(rng: np.random.Generator, body: _Body) -> Plane:
    """Consolidation: large, ill-defined and uneven; the fraction of air it takes."""
    u, v = _somewhere(rng, body, margin=10, above_floor=0.20)
    size, flat = rng.uniform(0.20, 0.32), rng.uniform(0.75, 1.25)
    edge = 1 - np.sqrt(((body.u - u) * flat) ** 2 + ((body.v - v) / flat) ** 2) / np.float32(size)
    ragged = edge + 0.30 * cloud(rng, (len(edge), edge.shape[1]), 12)
    taken: Plane = np.float32(rng.uniform(0.65, 0.95)) * step(ragged, 0.45) * (body.side == np.sign(u))
    return taken


def _nodule(rng: np.random.Generator, body: _Body) -> Plane:
    """A small round shadow with a sharp edge; the fraction of air it takes."""
    u, v = _somewhere(rng, body, margin=18, above_floor=0.10)
    edge = 1 - np.hypot(body.u - u, body.v - v) / np.float32(rng.uniform(0.068, 0.088))
    return np.float32(rng.uniform(0.9, 1.5)) * step(edge, 0.25)


def _effusion(rng: np.random.Generator, body: _Body) -> Plane:
    """Fluid over one diaphragm that climbs the chest wall (a meniscus); the fraction of air it takes."""
    side = either(rng, 1, -1)
    lateral = 0.80 - np.abs(body.u)
    flat, climb = float(body.floor.min()) - rng.uniform(-0.04, 0.22), rng.uniform(0.10, 0.25)
    level = flat - climb * np.exp(np.minimum(-lateral, 0) / 0.13)
    taken: Plane = np.float32(rng.uniform(0.75, 1.0)) * step(body.v - level, 0.05) * (body.side == side)
    return taken


_TAKES_AIR = {"opacity": _opacity, "nodule": _nodule, "effusion": _effusion}


def _pneumothorax(rng: np.random.Generator, body: _Body) -> tuple[Plane, Plane]:
    """Gas between chest wall and lung, most at the apex: where it is, and the pleural line."""
    side = either(rng, 1, -1)
    reach = rng.uniform(0.26, 0.45) * step(0.45 - body.v, 0.6)
    inward = (reach - body.depth) / np.hypot(0.2, 1.0) - 4 * np.maximum(0, 0.16 - np.abs(body.u))
    here = (body.side == side) & (body.depth > 0)
    line = 0.10 * np.exp(-((inward / 0.02) ** 2)) * body.air
    return step(inward, 0.02) * here, (line * here).astype(np.float32)


def _expose(picture: Plane, rng: np.random.Generator) -> Plane:
    """Exposure, contrast and noise as they come from the detector."""
    mid, contrast, brightness = 0.45, rng.uniform(0.80, 1.15), rng.uniform(-0.06, 0.06)
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(0.02, 0.05))
    exposed: Plane = (picture - mid) * np.float32(contrast) + np.float32(mid + brightness) + noise
    return exposed
