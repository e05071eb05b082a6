"""The way from the frame's grid to the wire's, and back."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from radserve.contracts import Aspect
from radserve.preprocess import interpolate_to_source_grid, place, resize, to_source_grid, to_wire_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.preprocess import Placement

ASPECTS = st.sampled_from(Aspect)


def _marker(rows: int, columns: int) -> NDArray[np.uint8]:
    """Three labels in an L near the middle: unlike their mirror images, their transpose and all their turns."""
    marker = np.zeros((rows, columns), np.uint8)
    down, right = rows // 12, columns // 12
    for label, (top, left) in enumerate([(4, 4), (7, 4), (7, 7)], start=1):
        marker[top * down : (top + 2) * down, left * right : (left + 1) * right] = label
    return marker


def _centroid(mask: NDArray[np.generic]) -> NDArray[np.float64]:
    center: NDArray[np.float64] = np.argwhere(mask).mean(axis=0)
    return center


@st.composite
def _placements(draw: st.DrawFn, *, least: int = 1) -> Placement:
    """Frames with and without a crop, of odd and even sizes, enlarged and reduced."""
    rows, columns = draw(st.integers(least, 200)), draw(st.integers(least, 200))
    wire = draw(st.integers(least, 96)), draw(st.integers(least, 96))
    box = draw(
        st.none()
        | st.tuples(
            st.integers(0, rows // 6),
            st.integers(0, columns // 6),
            st.integers(rows - rows // 6, rows),
            st.integers(columns - columns // 6, columns),
        )
    )
    return place((rows, columns), wire, draw(ASPECTS), box)


def _wire_pixel(placement: Placement) -> NDArray[np.float64]:
    """Size of a wire pixel in the frame's pixels."""
    return np.array([span.used / span.length for span in (placement.rows, placement.columns)])


@given(_placements(least=24))
def test_a_marker_comes_back_where_it_was(placement: Placement) -> None:
    frame = placement.rows.source, placement.columns.source
    marker, pixel = _marker(*frame), _wire_pixel(placement)
    seen = to_source_grid(np.ones((placement.rows.wire, placement.columns.wire), bool), placement)
    assume(seen[marker > 0].all())
    assume((np.array(frame) // 12 >= 2 * pixel).all())  # what is narrower than two wire pixels cannot be drawn
    on_wire = np.zeros((placement.rows.wire, placement.columns.wire), np.uint8)
    for label in (1, 2, 3):
        on_wire[to_wire_grid((marker == label).astype(np.float32), placement) >= 0.5] = label
    back = to_source_grid(on_wire, placement)
    for label in (1, 2, 3):
        moved = np.abs(_centroid(back == label) - _centroid(marker == label))
        # Its edges were rounded twice: to whole pixels of the wire, and to those of the frame.
        assert (moved <= 0.5 * pixel + 0.5).all()


@given(_placements(least=8), st.sampled_from((0, 1)))
def test_every_pixel_comes_back_from_where_it_went(placement: Placement, axis: int) -> None:
    # Each pixel of the frame holds its own place, so that each one on the wire holds the place it was made of.
    frame = placement.rows.source, placement.columns.source
    ramp = np.broadcast_to(np.expand_dims(np.arange(frame[axis]) + 0.5, 1 - axis), frame).astype(np.float32)
    on_wire = to_wire_grid(ramp, placement)
    pixel = _wire_pixel(placement)[axis]
    seen = to_source_grid(np.ones(on_wire.shape, bool), placement) & _inside(placement)
    assume(seen.any())
    # The kernel's weights are rounded to whole pixels: the place it takes the mean of is a little off.
    tolerance = 0.07 * pixel if pixel > 1 else 1e-3
    assert np.abs(to_source_grid(on_wire, placement) - ramp)[seen].max() <= 0.5 * pixel + tolerance
    assert np.abs(interpolate_to_source_grid(on_wire, placement) - ramp)[seen].max() <= tolerance


def _inside(placement: Placement) -> NDArray[np.bool_]:
    """Where nothing is near that the kernels of both ways could miss: neither an edge of the frame nor the wire's."""
    kept = []
    for span in (placement.rows, placement.columns):
        at = np.arange(span.source) + 0.5 - span.start
        reach = 2 * max(1, span.used / span.length)
        on_wire = span.offset + at * span.length / span.used
        kept.append(
            (np.abs(at - span.used / 2) < span.used / 2 - reach) & (np.abs(on_wire - span.wire / 2) < span.wire / 2 - 1)
        )
    inside: NDArray[np.bool_] = np.logical_and.outer(*kept)
    return inside


@given(_placements())
def test_what_the_model_did_not_see_is_0_and_all_else_is_not(placement: Placement) -> None:
    rows, columns = placement.rows, placement.columns
    ones = np.ones((rows.wire, columns.wire), np.uint8)
    seen = to_source_grid(ones, placement)
    smooth = interpolate_to_source_grid(ones.astype(np.float32), placement)
    assert seen.dtype == np.uint8
    assert seen.shape == (rows.source, columns.source)
    np.testing.assert_array_equal(smooth, seen)
    expected = np.zeros_like(seen)
    for row in range(rows.start, rows.start + rows.used):
        for column in (columns.start, columns.start + columns.used // 2, columns.start + columns.used - 1):
            on_wire = [
                span.offset + (Fraction(place - span.start) + Fraction(1, 2)) * span.length / span.used
                for place, span in ((row, rows), (column, columns))
            ]
            expected[row, column] = 0 <= on_wire[0] < rows.wire and 0 <= on_wire[1] < columns.wire
    checked = [columns.start, columns.start + columns.used // 2, columns.start + columns.used - 1]
    np.testing.assert_array_equal(seen[:, checked], expected[:, checked])
    assert int(seen.sum()) == int(seen.any(axis=1).sum()) * int(seen.any(axis=0).sum())


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_a_whole_multiple_comes_back_exactly(rows: int, columns: int, down: int, right: int) -> None:
    labels = np.random.default_rng(rows).integers(0, 256, (rows, columns)).astype(np.uint8)
    larger = place((rows * down, columns * right), (rows, columns), Aspect.STRETCH)
    np.testing.assert_array_equal(to_source_grid(labels, larger), labels.repeat(down, 0).repeat(right, 1))
    smaller = place((rows, columns), (rows * down, columns * right), Aspect.STRETCH)
    finer = labels.repeat(down, 0).repeat(right, 1)
    np.testing.assert_array_equal(to_source_grid(finer, smaller), labels)


def test_an_evidence_map_coarser_than_the_wire_covers_it_evenly() -> None:
    placement = place((8, 8), (4, 4), Aspect.STRETCH)
    coarse = np.array([[0, 1], [0, 1]], np.float32)
    found = interpolate_to_source_grid(coarse, placement)
    np.testing.assert_allclose(found[0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    np.testing.assert_array_equal(found, np.broadcast_to(found[0], (8, 8)))


@pytest.mark.parametrize(("aspect", "shape"), [(Aspect.PAD, (20, 40)), (Aspect.CROP, (20, 40)), (Aspect.PAD, (40, 20))])
def test_padding_and_cropping_leave_the_middle_in_the_middle(aspect: Aspect, shape: tuple[int, int]) -> None:
    placement = place(shape, (12, 12), aspect)
    middle = np.zeros((12, 12), bool)
    middle[5:7, 5:7] = True
    np.testing.assert_allclose(_centroid(to_source_grid(middle, placement)), (np.array(shape) - 1) / 2)


def test_cropping_an_extremely_thin_image_takes_no_more_memory_than_its_parts() -> None:
    image = np.ones((1, 65_535), np.float32)
    tracemalloc.start()
    try:
        found = resize(image, 512, 512, Aspect.CROP)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found, np.ones((512, 512)), atol=1e-6)
    assert peak < 16 * 2**20
