"""From modality values to grey levels: windows, LUTs, padding, and blocks of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.images import described, image

from radserve import sources
from radserve.contracts import (
    Aspect,
    Crop,
    FileWindow,
    PercentileWindow,
    Resize,
)
from radserve.errors import DecodeError, OutOfScopeError
from radserve.preprocess import (
    _resize,
    _window,
    apply_window,
    image_to_wire,
    render,
)
from radserve.sources import Image, Rescale, VoiLut, VoiWindow


def test_linear_is_the_formula_of_the_standard() -> None:
    center, width = 40.0, 400.0
    values = np.arange(-300, 400, dtype=np.float32)
    expected = np.array(
        [
            0
            if x <= center - 0.5 - (width - 1) / 2
            else 1
            if x > center - 0.5 + (width - 1) / 2
            else (x - (center - 0.5)) / (width - 1) + 0.5
            for x in values.tolist()
        ]
    )
    np.testing.assert_allclose(apply_window(values, VoiWindow(center=center, width=width)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "width", "expected"),
    [
        ("LINEAR", 1, [0, 0, 1]),
        ("LINEAR", 3, [0.25, 0.75, 1]),
        ("LINEAR_EXACT", 2, [0, 0.5, 1]),
        ("LINEAR_EXACT", 0.5, [0, 0.5, 1]),
        ("SIGMOID", 4, [1 / (1 + np.e), 0.5, np.e / (1 + np.e)]),
    ],
)
def test_windows_have_their_values(function: str, width: float, expected: list[float]) -> None:
    values = np.array([-1, 0, 1], dtype=np.float32)
    center = 0.6 if (function, width) == ("LINEAR", 1) else 0
    window = VoiWindow(center=center, width=width, function=function)
    np.testing.assert_allclose(apply_window(values, window), expected, atol=1e-6)


@pytest.mark.parametrize(("function", "width"), [("LINEAR", 0.5), ("LINEAR_EXACT", 0), ("SIGMOID", -1), ("CUBIC", 10)])
def test_a_window_that_breaks_the_standard_is_refused(function: str, width: float) -> None:
    with pytest.raises(DecodeError):
        apply_window(np.zeros(1, np.float32), VoiWindow(center=0, width=width, function=function))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize(("center", "width"), [(1e39, 1e50), (-1e39, 400), (40, 1e50)])
def test_a_window_beyond_all_values_is_refused(function: str, center: float, width: float) -> None:
    with pytest.raises(DecodeError, match="more than"):
        apply_window(np.zeros(1, np.float32), VoiWindow(center=center, width=width, function=function))


def test_a_voi_lut_maps_what_is_below_first_to_first_and_above_last_to_last() -> None:
    lut = VoiLut(first=10, table=np.array([0, 100, 255], np.uint16), bits=8)
    display = apply_window(np.array([-5, 10, 11, 12, 99], np.float32), lut)
    np.testing.assert_allclose(display * 255, [0, 0, 100, 255, 255], rtol=1e-6)
    between = apply_window(np.array([10.4, 10.6, 11.4, 11.6], np.float32), lut)
    np.testing.assert_allclose(between * 255, [0, 100, 100, 255], rtol=1e-6)
    beyond_int64 = apply_window(np.array([-1e20, 1e20], np.float32), lut)
    assert beyond_int64.tolist() == [0, 1]


def test_monochrome1_is_inverted_after_the_window() -> None:
    values = np.arange(48, 80, 2.0).reshape(4, 4)
    window = VoiWindow(center=100, width=200, function="SIGMOID")
    wire = {
        kind: image_to_wire(
            image(values, photometric_interpretation=kind, windows=(window,)), described(window=FileWindow())
        )
        for kind in ("MONOCHROME1", "MONOCHROME2")
    }
    np.testing.assert_array_equal(wire["MONOCHROME1"].astype(int) + wire["MONOCHROME2"], 255)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padded_pixels_are_black_and_do_not_move_the_percentiles(photometric: str) -> None:
    values = np.arange(16, dtype=float).reshape(4, 4)
    values[0, 0] = -2000
    picture = image(values, valid=values > -1000, photometric_interpretation=photometric)
    wire = image_to_wire(picture, described(window=PercentileWindow(lower=0, upper=100)))
    assert wire[0, 0, 0] == 0
    assert sorted({int(wire[0, 1, 0]), int(wire[3, 3, 0])}) == [0, 255]


@pytest.mark.parametrize(("wire_dtype", "highest"), [("UINT8", 255), ("UINT16", 65535)])
def test_the_window_spans_the_wire_and_is_rounded(wire_dtype: str, highest: int) -> None:
    values = np.linspace(0, 1, 16).reshape(4, 4)
    exact = PercentileWindow(lower=0, upper=100)
    wire = image_to_wire(image(values), described(wire_dtype=wire_dtype, window=exact))
    assert wire.shape == (4, 4, 1)
    assert np.abs(wire[..., 0] - values * highest).max() <= 0.51


@pytest.mark.parametrize(
    ("windows", "index", "fallback", "accepted"),
    [
        ((VoiWindow(center=1, width=9),), 0, None, True),
        ((VoiWindow(center=1, width=9),), 1, None, False),
        ((VoiWindow(center=1, width=9),), 1, (1, 99), False),
        ((), 0, None, False),
        ((), 0, (1, 99), True),
    ],
)
def test_a_file_without_the_window_asked_for_is_refused_or_falls_back(
    *, windows: tuple[VoiWindow, ...], index: int, fallback: tuple[float, float] | None, accepted: bool
) -> None:
    picture = image(np.arange(16).reshape(4, 4), windows=windows)
    contract = described(window=FileWindow(index=index, fallback_percentiles=fallback))
    if accepted:
        assert image_to_wire(picture, contract).max() > 0
    else:
        with pytest.raises(OutOfScopeError, match="window"):
            image_to_wire(picture, contract)


@pytest.mark.parametrize(
    "window",
    [
        *(VoiWindow(center=40, width=80.5, function=function) for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID")),
        VoiLut(first=-5, table=np.arange(100).astype(np.uint16), bits=8),
    ],
)
def test_a_window_does_not_see_where_a_block_ends(window: VoiWindow | VoiLut, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).uniform(-50, 150, (37, 11)).astype(np.float32)
    whole = apply_window(values, window)
    monkeypatch.setattr(_window, "_BLOCK_SAMPLES", 50)
    np.testing.assert_array_equal(apply_window(values, window), whole)


LUT = VoiLut(first=-5, table=(np.arange(100) ** 2).astype(np.uint16), bits=14)
SHOWN: list[dict[str, Any]] = [
    {"windows": (VoiWindow(center=40, width=80.5),)},
    {"windows": (VoiWindow(center=40, width=1),), "modality": Rescale(slope=1, intercept=-9)},
    {"windows": (VoiWindow(center=-3, width=50.5, function="SIGMOID"),)},
    {
        "windows": (VoiWindow(center=3, width=2.5, function="LINEAR_EXACT"),),
        "modality": Rescale(slope=0.037, intercept=2),
    },
    {"windows": (LUT,), "photometric_interpretation": "MONOCHROME1"},
    {"windows": (VoiWindow(center=500, width=900),), "modality": LUT},
    {
        "windows": (VoiWindow(center=40, width=80.5, function="SIGMOID"), LUT),
        "photometric_interpretation": "MONOCHROME1",
    },
    {},
]


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize(("dtype", "lowest"), [("<i2", -60), ("<i2", -200), ("u1", 0), ("<u2", 40), (">u2", 0)])
@pytest.mark.parametrize("aspect", Aspect)
def test_stored_integers_give_what_their_modality_values_give(
    shown: dict[str, Any], dtype: str, lowest: int, aspect: Aspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(lowest, lowest + 100, (120, 75)).astype(dtype)
    standard: dict[str, Any] = {"photometric_interpretation": "MONOCHROME2", "valid": pixels > lowest + 10, **shown}
    stored = Image(pixels=pixels, **standard)
    whole = Image(pixels=stored.values, **{**standard, "modality": None})
    contract = described(
        rows=30, columns=31, resize=Resize(aspect=aspect), window=FileWindow(fallback_percentiles=(1, 99))
    )
    expected, is_blank = render(whole, contract)
    for large in (_resize._LARGE_FRAME_SAMPLES, 0):
        monkeypatch.setattr(_resize, "_LARGE_FRAME_SAMPLES", large)
        monkeypatch.setattr(sources, "_BLOCK_SAMPLES", 600)
        for one in (stored, whole):
            wire, one_is_blank = render(one, contract)
            np.testing.assert_array_equal(wire, expected)
            assert one_is_blank == is_blank


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">u2", "<i4", "<f4", "<f8"])
def test_modality_values_are_made_of_pixels_of_any_type(dtype: str) -> None:
    pixels = np.arange(12).reshape(3, 4).astype(dtype)
    rescaled = Image(
        pixels=pixels, photometric_interpretation="MONOCHROME2", modality=Rescale(slope=2, intercept=-24)
    ).values
    assert rescaled.dtype == np.float32
    np.testing.assert_array_equal(rescaled.ravel(), np.arange(-24, 0, 2))


def test_a_pixel_that_differs_is_seen_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_BLOCK_SAMPLES", 100)
    pixels = np.full((40, 50), 7, np.uint16)
    for place in ((0, 0), (20, 30), (39, 49)):
        other = pixels.copy()
        other[place] = 200
        image_to_wire(Image(pixels=other, photometric_interpretation="MONOCHROME2"), described())
        with pytest.raises(OutOfScopeError, match="no contrast"):
            image_to_wire(Image(pixels=other, photometric_interpretation="MONOCHROME2", valid=other == 7), described())
    with pytest.raises(OutOfScopeError, match="no contrast"):
        image_to_wire(Image(pixels=pixels, photometric_interpretation="MONOCHROME2"), described())


@pytest.mark.parametrize("large", [_resize._LARGE_FRAME_SAMPLES, 0])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_blocks_that_differ_from_each_other_alone_are_contrast(
    photometric: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_resize, "_LARGE_FRAME_SAMPLES", large)
    monkeypatch.setattr(sources, "_BLOCK_SAMPLES", 1)
    pixels = np.repeat(np.arange(40, dtype=np.uint8)[:, np.newaxis], 50, axis=1)
    if photometric == "RGB":
        pixels = np.repeat(pixels[..., np.newaxis], 3, axis=2)
    image_to_wire(Image(pixels=pixels, photometric_interpretation=photometric), described(photometric="RGB"))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_stays_black_where_a_frame_is_cropped(photometric: str) -> None:
    pixels = np.arange(20, 40, dtype=np.uint16).reshape(5, 4)
    picture = Image(pixels=pixels, photometric_interpretation=photometric, valid=pixels != 25)
    wire = image_to_wire(picture, described(crop=Crop(top=0.2)))[..., 0]
    assert np.argwhere(wire == 0).tolist() == [[0, 1]]
