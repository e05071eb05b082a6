"""From modality values to the wire."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.images import FULL, described, image

from radserve.contracts import (
    Aspect,
    Crop,
    PercentileWindow,
    PixelAspect,
    Resize,
)
from radserve.errors import DecodeError, OutOfScopeError
from radserve.preprocess import (
    _resize,
    crop_box,
    image_to_wire,
    resize,
)
from radserve.sources import Image


@pytest.mark.parametrize(
    ("shape", "crop", "fits"),
    [
        ((16, 16), None, True),
        ((15, 64), None, False),
        ((64, 15), None, False),
        ((1, 1), None, False),
        ((20, 64), Crop(top=0.5), False),
    ],
)
def test_an_image_of_less_than_a_quarter_of_the_models_size_is_refused(
    shape: tuple[int, int],
    crop: Crop | None,
    fits: bool,  # noqa: FBT001 - pytest's parameter
) -> None:
    picture = image(np.arange(np.prod(shape)).reshape(shape))
    contract = described(rows=64, columns=64, crop=crop)
    if fits:
        image_to_wire(picture, contract)
    else:
        with pytest.raises(OutOfScopeError, match="too small: the model reads 64 x 64"):
            image_to_wire(picture, contract)


@pytest.mark.parametrize(
    "picture",
    [
        image(np.full((8, 8), 5)),
        image(np.full((8, 8), np.arange(8) + 1000.0)),
        image(np.where(np.eye(8) > 0, -2000, 5), valid=np.eye(8) == 0),
        image(np.zeros((8, 8)), valid=np.zeros((8, 8), bool)),
        Image(pixels=np.full((8, 8, 3), [10, 20, 30], np.uint8), photometric_interpretation="RGB"),
    ],
    ids=["one value", "all above the window", "all but the padding", "nothing but padding", "one colour"],
)
@pytest.mark.parametrize("aspect", Aspect)
def test_an_image_that_shows_nothing_is_refused(picture: Image, aspect: Aspect) -> None:
    with pytest.raises(OutOfScopeError, match="contrast"):
        image_to_wire(picture, described(photometric="RGB", resize=Resize(aspect=aspect)))


def test_one_pixel_that_differs_is_contrast() -> None:
    values = np.zeros((301, 203))
    values[150, 101] = 200
    assert image_to_wire(image(values), described(rows=301, columns=203)).max() > 0


@pytest.mark.parametrize(("pixel_aspect", "rows"), [(None, 8), (1.0, 8), (0.5, 4), (2.0, 8)])
def test_square_pixels_take_the_shape_of_the_patient(pixel_aspect: float | None, rows: int) -> None:
    values = np.full((8, 8), 300.0)
    values[0, 0] = 200
    picture = image(values, pixel_aspect=pixel_aspect)
    square = described(rows=8, columns=8, resize=Resize(aspect=Aspect.PAD, pixels=PixelAspect.SQUARE))
    wire = image_to_wire(picture, square)[..., 0]
    assert (wire.max(axis=1) > 0).sum() == rows
    assert (wire.max(axis=0) > 0).sum() == (4 if pixel_aspect == 2 else 8)
    ignored = described(rows=8, columns=8, resize=Resize(aspect=Aspect.PAD))
    assert (image_to_wire(picture, ignored) > 0).all()


@pytest.mark.parametrize("pixel_aspect", [np.nan, 0.0, 1e-9, 1e9, np.inf])
def test_pixels_of_an_impossible_shape_are_refused_where_it_matters(pixel_aspect: float) -> None:
    picture = image(np.arange(64).reshape(8, 8), pixel_aspect=pixel_aspect)
    image_to_wire(picture, described())
    with pytest.raises(DecodeError, match="PixelSpacing"):
        image_to_wire(picture, described(resize=Resize(pixels=PixelAspect.SQUARE)))


def test_a_circle_in_the_patient_is_a_circle_on_the_wire() -> None:
    # Half a millimetre between rows, a quarter between columns.
    y, x = np.mgrid[:80, :160]
    values = 250.0 * (((y - 39.5) * 0.5) ** 2 + ((x - 79.5) * 0.25) ** 2 < 15**2)
    picture = image(values, pixel_aspect=2.0)
    for aspect in (Aspect.PAD, Aspect.CROP):
        square = described(rows=40, columns=48, resize=Resize(aspect=aspect, pixels=PixelAspect.SQUARE))
        drawn = image_to_wire(picture, square)[..., 0] > 127
        assert abs(int(drawn.any(axis=0).sum()) - int(drawn.any(axis=1).sum())) <= 1


@pytest.mark.parametrize(
    ("rows", "columns", "crop", "box"),
    [
        (10, 20, None, (0, 0, 10, 20)),
        (10, 20, Crop(top=0.1, left=0.1, bottom=0.2, right=0.05), (1, 2, 8, 19)),
        (30, 30, Crop(top=0.1, bottom=0.7), (3, 0, 9, 30)),
        (15, 15, Crop(top=0.1, left=0.1, bottom=0.1, right=0.1), (2, 2, 13, 13)),
    ],
    ids=["none", "all sides", "no rounding error", "a pixel cut in part goes"],
)
def test_the_crop_is_cut_off_in_whole_pixels(
    rows: int, columns: int, crop: Crop | None, box: tuple[int, int, int, int]
) -> None:
    assert crop_box(rows, columns, crop) == box


@given(st.integers(1, 9000), st.integers(1, 9000), st.tuples(*[st.floats(0, 0.47)] * 4))
def test_any_crop_keeps_pixels_inside_the_frame_or_refuses_it(
    rows: int, columns: int, cuts: tuple[float, float, float, float]
) -> None:
    assume(any(cuts))
    top, left, bottom, right = cuts
    try:
        box = crop_box(rows, columns, Crop(top=top, left=left, bottom=bottom, right=right))
    except OutOfScopeError:
        assert min(rows, columns) < 40
    else:
        assert 0 <= box[0] < box[2] <= rows
        assert 0 <= box[1] < box[3] <= columns
        cut_off = (box[0], box[1], rows - box[2], columns - box[3])
        for length, cut, share in zip((rows, columns) * 2, cut_off, cuts, strict=True):
            assert length * share - 1e-5 <= cut < length * share + 1


@pytest.mark.parametrize("sides", [{}, {"top": 0.5, "bottom": 0.46}, {"left": 0.48, "right": 0.48}, {"top": 0.951}])
def test_a_crop_that_cuts_nothing_or_nearly_all_is_no_contract(sides: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cuts"):
        Crop(**sides)


@pytest.mark.parametrize("side", ["top", "left", "bottom", "right"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "RGB"])
@pytest.mark.parametrize("window", [FULL, PercentileWindow(lower=1, upper=99)], ids=["fixed", "percentiles"])
def test_what_is_cropped_does_not_reach_the_wire(side: str, photometric: str, window: Any) -> None:
    shape = (40, 40, 3) if photometric == "RGB" else (40, 40)
    drawn = np.random.default_rng(1).integers(0, 256, shape)
    values: Any = drawn.astype(np.uint8 if photometric == "RGB" else np.float32)
    marked = values.copy()
    edge = {"top": np.s_[:10], "bottom": np.s_[30:], "left": np.s_[:, :10], "right": np.s_[:, 30:]}[side]
    marked[edge] = 255 - marked[edge]
    plain = described(rows=8, columns=8, photometric="RGB", window=window)
    cropped = msgspec.structs.replace(plain, crop=Crop(**{side: 0.25}))
    valid = None if photometric == "RGB" else values > 3
    one, two = (
        Image(pixels=pixels, photometric_interpretation=photometric, valid=valid) for pixels in (values, marked)
    )
    assert (image_to_wire(one, plain) != image_to_wire(two, plain)).any()
    np.testing.assert_array_equal(image_to_wire(one, cropped), image_to_wire(two, cropped))


def test_the_crop_comes_before_the_percentiles_and_the_resize() -> None:
    values = np.zeros((8, 4))
    values[:4] = 1000
    values[4:, 2:] = 10
    one = described(window=PercentileWindow(lower=0, upper=100), crop=Crop(top=0.5))
    assert image_to_wire(image(values), one)[..., 0].tolist() == [[0, 0, 255, 255]] * 4


def test_an_image_of_which_the_crop_leaves_nothing_is_refused() -> None:
    with pytest.raises(OutOfScopeError, match="too small"):
        image_to_wire(image(np.ones((1, 9))), described(crop=Crop(top=0.5)))


def test_an_image_without_contrast_is_refused() -> None:
    with pytest.raises(OutOfScopeError, match="contrast"):
        image_to_wire(image(np.ones((4, 4))), described(window=PercentileWindow(lower=1, upper=99)))


def test_colour_is_refused_by_a_monochrome_model_and_kept_by_an_rgb_one() -> None:
    values = np.full((4, 4, 3), [10, 20, 30], np.uint8)
    values[0, 0] = 255
    rgb = Image(pixels=values, photometric_interpretation="RGB")
    with pytest.raises(OutOfScopeError, match="colour"):
        image_to_wire(rgb, described())
    assert image_to_wire(rgb, described(photometric="RGB"))[1, 2].tolist() == [10, 20, 30]


def test_an_rgb_model_gets_three_equal_channels_of_a_monochrome_image() -> None:
    wire = image_to_wire(image(np.arange(16).reshape(4, 4)), described(photometric="RGB"))
    assert wire.shape == (4, 4, 3)
    assert (wire == wire[:, :, :1]).all()


@pytest.mark.parametrize(
    ("aspect", "bright_rows", "bright_columns"), [(Aspect.STRETCH, 4, 4), (Aspect.PAD, 2, 4), (Aspect.CROP, 4, 4)]
)
def test_aspect_says_what_happens_to_another_shape(aspect: Aspect, bright_rows: int, bright_columns: int) -> None:
    contract = described(resize=Resize(aspect=aspect))
    wire = image_to_wire(image([[300, 300, 300, 300], [300, 200, 200, 300]]), contract)[..., 0]
    assert (wire.max(axis=1) > 0).sum() == bright_rows
    assert (wire.max(axis=0) > 0).sum() == bright_columns


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40), st.sampled_from(list(Aspect)))
def test_any_resize_keeps_size_and_range(rows: int, columns: int, height: int, width: int, aspect: Aspect) -> None:
    values = np.random.default_rng(rows * 61 + columns).random((rows, columns), dtype=np.float32)
    resized = resize(values, height, width, aspect)
    assert resized.shape == (height, width)
    assert resized.min() >= 0
    assert resized.max() <= values.max() + 1e-6


@pytest.mark.parametrize("shape", [(300, 40), (61, 50, 3), (20, 31)])
def test_rows_made_one_by_one_are_those_made_tap_by_tap(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    tap_by_tap = resize(values, 30, 40)
    monkeypatch.setattr(_resize, "_LARGE_SAMPLES", 0)
    np.testing.assert_array_equal(resize(values, 30, 40), tap_by_tap)


def test_resize_agrees_with_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # noqa: PLC0415 - takes seconds, and only this test needs it

    tf.config.set_visible_devices([], "GPU")
    shapes = [
        ((128, 128), (28, 28)),
        ((100, 37), (200, 50)),
        ((5, 7), (28, 28)),
        ((301, 200), (33, 199)),
        ((1, 1), (5, 5)),
    ]
    for shape, (rows, columns) in shapes:
        values = np.random.default_rng(0).random(shape, dtype=np.float32)
        theirs = tf.image.resize(values[..., None], (rows, columns), antialias=True).numpy()[..., 0]
        assert np.abs(theirs - resize(values, rows, columns)).max() <= 1e-5, shape
