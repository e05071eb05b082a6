"""Series as one volume: to the wire, and the answer back on the source's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.series import enhanced, stack
from support.studies import DRAWN, SIZE, contract, probabilities, segmented, series

from radserve import Classification, _codec
from radserve.contracts import (
    Aspect,
    Crop,
    FileWindow,
    FixedWindow,
    PercentileWindow,
    Resize,
    Task,
    WholeVolume,
)
from radserve.errors import InconsistentSeriesError, InputError
from radserve.preprocess import to_source_grid


@pytest.mark.parametrize("aspect", Aspect)
@pytest.mark.parametrize("spacing", [None, (5.0, 2.0, 2.0), (2.5, 1.0, 1.5)])
@pytest.mark.parametrize("crop", [None, Crop(top=0.1, left=0.1)])
def test_a_volumes_label_map_comes_back_where_it_was(
    aspect: Aspect, spacing: tuple[float, float, float] | None, crop: Crop | None
) -> None:
    described = contract(
        WholeVolume(slices=14, spacing_mm=spacing),
        Task.IMAGE_SEGMENTATION,
        rows=40,
        columns=40,
        resize=Resize(aspect=aspect),
        crop=crop,
    )
    result = segmented(described, series()[::-1])
    assert result.label_map.shape == SIZE
    placement = _codec.prepare(described, series()).placement
    assert placement is not None
    seen = to_source_grid(np.ones([axis.wire for axis in placement.spans], np.uint8), placement) > 0
    assert not result.label_map[~seen].any()
    assert ((result.label_map > 0) == (DRAWN > 0))[seen].mean() > 0.97
    assert (result.label_map[seen] > 0).sum() == pytest.approx((DRAWN[seen] > 0).sum(), rel=0.1)
    assert result.geometry is not None
    assert result.geometry.slice_spacing_mm == pytest.approx(5)


def test_a_volume_of_the_models_own_size_and_spacing_travels_as_it_is() -> None:
    described = contract(
        WholeVolume(slices=12, spacing_mm=(5.0, 1.0, 1.0)), Task.IMAGE_SEGMENTATION, rows=40, columns=50
    )
    np.testing.assert_array_equal(segmented(described, series()).label_map, DRAWN)
    stretched = contract(WholeVolume(slices=12), rows=40, columns=50)
    spaced = contract(WholeVolume(slices=12, spacing_mm=(5.0, 1.0, 1.0)), rows=40, columns=50)
    one, other = (_codec.prepare(described, series()).inputs["PIXELS"] for described in (stretched, spaced))
    np.testing.assert_array_equal(one, other)


def test_slices_are_resampled_by_their_spacing() -> None:
    # A ramp along the normal in steps of 10: twice as many slices at half the distance lie between them.
    values = np.broadcast_to(10 * np.arange(1, 9)[:, np.newaxis, np.newaxis], (8, 4, 4)).copy()
    values[:, 0, 0] += 1
    described = contract(WholeVolume(slices=16, spacing_mm=(2.5, 1, 1)), rows=4, columns=4, wire_dtype="UINT16",
                         window=FixedWindow(center=128, width=256))  # fmt: skip
    wire = _codec.prepare(described, stack(values)).inputs["PIXELS"][0, :, 2, 2, 0] / 65535 * 255
    np.testing.assert_allclose(wire[1:-1], 10 + 5 * np.arange(14) + 2.5, atol=0.1)
    coarse = contract(WholeVolume(slices=4, spacing_mm=(10, 1, 1)), rows=4, columns=4, wire_dtype="UINT16",
                      window=FixedWindow(center=128, width=256))  # fmt: skip
    wire = _codec.prepare(coarse, stack(values)).inputs["PIXELS"][0, :, 2, 2, 0] / 65535 * 255
    np.testing.assert_allclose(wire[1:-1], [35, 55], atol=0.1)


def test_a_volume_smaller_than_the_models_is_padded_around_its_middle() -> None:
    values = np.full((4, 4, 4), 300)
    values[0, 0, 0] = 0
    described = contract(WholeVolume(slices=8, spacing_mm=(5, 1, 1)), rows=8, columns=8)
    wire = _codec.prepare(described, stack(values)).inputs["PIXELS"][0, ..., 0]
    filled = np.argwhere(wire)
    assert (filled.min(axis=0).tolist(), filled.max(axis=0).tolist()) == ([2, 2, 2], [5, 5, 5])


def test_percentiles_are_those_of_the_whole_volume() -> None:
    values = np.arange(4 * 16).reshape(4, 4, 4)
    described = contract(WholeVolume(slices=4), rows=4, columns=4, window=PercentileWindow(lower=0, upper=100))
    wire = _codec.prepare(described, stack(values)).inputs["PIXELS"][0, ..., 0]
    np.testing.assert_array_equal(wire, np.rint(values / 63 * 255).astype(np.uint8))


def test_a_volume_names_each_frame_once_however_often_it_was_read() -> None:
    described = contract(WholeVolume(slices=4), rows=4, columns=4, window=PercentileWindow(lower=0, upper=100))
    prepared = _codec.prepare(described, enhanced(stack(np.arange(4 * 16).reshape(4, 4, 4))))
    assert (prepared.sop_instance_uids, prepared.frame_numbers) == (("1.2.3",), (1, 2, 3, 4))


def test_slices_with_windows_of_their_own_are_no_volume() -> None:
    described = contract(WholeVolume(slices=4), rows=4, columns=4, window=FileWindow())
    values = np.arange(4 * 16).reshape(4, 4, 4)
    same = stack(values, WindowCenter=40, WindowWidth=80)
    assert _codec.prepare(described, same).inputs["PIXELS"].max() == 203
    same[2].WindowWidth = 90
    with pytest.raises(InconsistentSeriesError, match="different windows"):
        _codec.prepare(described, same)


@pytest.mark.parametrize(
    ("source", "study", "match"),
    [
        (series()[:1], WholeVolume(slices=12), "one image is no volume"),
        (series()[:3], WholeVolume(slices=14), "less than a quarter"),
        (series(), WholeVolume(slices=12, spacing_mm=(0.05, 1, 1)), "64 times"),
        (series(DRAWN[:3]), WholeVolume(slices=3), "no contrast"),
        (series(ImagePositionPatient=None), WholeVolume(slices=12), "no place"),
    ],
)
def test_what_the_model_cannot_read_as_a_volume_is_refused(source: Any, study: WholeVolume, match: str) -> None:
    with pytest.raises(InputError, match=match):
        _codec.prepare(contract(study), source)


def test_the_answer_to_a_volume_is_one() -> None:
    described = contract(WholeVolume(slices=12))
    prepared = _codec.prepare(described, series())
    assert prepared.inputs["PIXELS"].shape == (1, 12, 20, 25, 1)
    result = _codec.combine(described, prepared, probabilities(described, prepared, [(0.2, 0.8)]))
    assert isinstance(result, Classification)
    assert (result.top.label, result.images) == ("opacity", ())
    assert len(result.provenance.sop_instance_uids) == 12
