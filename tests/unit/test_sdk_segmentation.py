"""Label maps: from the wire back to the source image, without a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.datasets import item, make
from support.outlines import COLUMNS, LEVELS, ROWS, picture, truth
from support.sdk_contracts import contract as small_contract

from radserve import Segmentation, _codec
from radserve.contracts import (
    Aspect,
    Contract,
    Crop,
    FixedWindow,
    ImageInput,
    Policy,
    Resize,
    Task,
)
from radserve.errors import InferenceFailedError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def contract(**changed: Any) -> Contract:
    described = ImageInput(
        modalities=("CT",),
        rows=ROWS,
        columns=COLUMNS,
        window=FixedWindow(center=100.5, width=201),
        absent_attributes=Policy.ACCEPT,
        **changed,
    )
    names = ("organ", "lesion")
    return small_contract(described, task=Task.IMAGE_SEGMENTATION, names=names, name="outlines", exclusive=True)


def answer(wire: NDArray[Any]) -> _codec.Answer:
    """What a perfect model of a ``picture`` answers."""
    label_map = np.rint(wire[..., 0] / 255 * 2).astype(np.uint8)
    return _codec.Answer(arrays={"LABEL_MAP": label_map}, request_id="r")


def segment(described: Contract, source: Any, *, frame: int | None = None) -> Segmentation:
    prepared = _codec.prepare(described, source, frame=frame)
    result = _codec.to_result(described, prepared, answer(prepared.inputs["PIXELS"]))
    assert isinstance(result, Segmentation)
    return result


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("aspect", Aspect)
@pytest.mark.parametrize("shape", [(120, 90), (90, 160), (101, 131), (60, 60)])
@pytest.mark.parametrize("crop", [None, Crop(top=0.2, left=0.05, right=0.15)])
def test_an_asymmetric_marker_comes_back_where_it_was(
    aspect: Aspect, shape: tuple[int, int], crop: Crop | None
) -> None:
    drawn = truth(*shape)
    described = contract(resize=Resize(aspect=aspect), crop=crop)
    result = segment(described, picture(drawn))
    assert result.label_map.shape == shape
    assert result.label_map.dtype == np.uint8
    for value in (1, 2):
        found, expected = result.label_map == value, drawn == value
        wire_pixel = max(shape[0] / ROWS, shape[1] / COLUMNS)
        moved = np.abs(np.argwhere(found).mean(axis=0) - np.argwhere(expected).mean(axis=0))
        assert moved.max() <= 0.5 * wire_pixel + 0.5
    assert dice(result.label_map > 0, drawn > 0) > 0.85


def test_a_map_of_the_wires_own_size_comes_back_as_it_is() -> None:
    drawn = truth(ROWS, COLUMNS)
    np.testing.assert_array_equal(segment(contract(), picture(drawn)).label_map, drawn)


def test_what_the_model_did_not_see_is_background() -> None:
    full = np.ones((100, 100), np.uint8)
    full[50, 50] = 2
    described = contract(resize=Resize(aspect=Aspect.CROP), crop=Crop(top=0.3))
    result = segment(described, picture(full))
    assert not result.label_map[:30].any()
    seen = np.argwhere(result.label_map)
    # 70 x 100 pixels on a wire of 24 x 32: the width is cut to 70 * 32 / 24 = 93.3.
    assert seen.min(axis=0).tolist() == [30, 3]
    assert seen.max(axis=0).tolist() == [99, 96]


def test_regions_name_count_and_measure_every_label() -> None:
    result = segment(contract(), picture(truth(48, 64), PixelSpacing=[0.5, 2]))
    organ, lesion = result.findings
    assert (organ.label, organ.value, organ.is_positive) == ("organ", 1, True)
    assert (lesion.label, lesion.value, lesion.code.value) == ("lesion", 2, "lesion")
    assert organ.pixel_count == int((result.label_map == 1).sum()) > 0
    assert lesion.area_mm2 == lesion.pixel_count * 1.0


def test_without_pixel_spacing_there_is_no_area() -> None:
    # The detector's spacing is larger than that in the patient.
    source = picture(truth(48, 64), ImagerPixelSpacing=[0.2, 0.2])
    assert [region.area_mm2 for region in segment(contract(), source).findings] == [None, None]


@pytest.mark.parametrize("spacing", ["1e200", "1e-200", "1e6", "0"])
def test_an_impossible_spacing_gives_no_area(spacing: str) -> None:
    result = segment(contract(), picture(truth(48, 64), PixelSpacing=[spacing, spacing]))
    assert [region.area_mm2 for region in result.findings] == [None, None]
    assert json.loads(result.to_json()) == result.to_dict()


def test_a_label_that_is_not_there_is_negative() -> None:
    result = segment(contract(), picture(np.zeros((50, 40), np.uint8), faint=10))
    assert [(region.is_positive, region.pixel_count) for region in result.findings] == [(False, 0), (False, 0)]
    assert not result.label_map.any()


def test_the_chosen_frame_is_segmented() -> None:
    frames = np.stack([np.zeros((40, 50), np.uint8), truth(40, 50)])
    values = np.array(LEVELS, "<u2")[frames]
    values[0, 0, 0] = 10
    source = make(Rows=40, Columns=50, NumberOfFrames=2, PixelData=values.tobytes())
    measures = item(PixelSpacing=[2, 2])
    source.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures])]
    empty, drawn = (segment(contract(), source, frame=index) for index in (0, 1))
    assert not empty.label_map.any()
    assert dice(drawn.label_map > 0, frames[1] > 0) > 0.9
    assert drawn.findings[0].area_mm2 == 4 * drawn.findings[0].pixel_count


def test_arrays_of_modality_values_come_back_on_their_own_grid() -> None:
    drawn = truth(75, 61)
    result = segment(contract(resize=Resize(aspect=Aspect.PAD)), np.array(LEVELS)[drawn])
    assert result.label_map.shape == (75, 61)
    assert dice(result.label_map > 0, drawn > 0) > 0.85


def test_arrays_as_on_the_wire_come_back_on_the_wires_grid() -> None:
    drawn = truth(ROWS, COLUMNS)
    wire = (drawn * 127).astype(np.uint8)[..., np.newaxis]
    described = contract(resize=Resize(aspect=Aspect.PAD), crop=Crop(top=0.5))
    np.testing.assert_array_equal(segment(described, wire).label_map, drawn)


def test_a_value_that_is_no_labels_is_not_trusted() -> None:
    described = contract()
    prepared = _codec.prepare(described, picture(truth(48, 64)))
    wrong = _codec.Answer(arrays={"LABEL_MAP": np.full((1, ROWS, COLUMNS), 3, np.uint8)}, request_id="r")
    with pytest.raises(InferenceFailedError, match="no label's"):
        _codec.to_result(described, prepared, wrong)


def test_the_result_is_read_only_and_written_without_its_pixels() -> None:
    result = segment(contract(), picture(truth(48, 64)))
    with pytest.raises(ValueError, match="read-only"):
        result.label_map[0, 0] = 1
    told = json.loads(result.to_json())
    assert (told["model"], told["version"], told["rows"], told["columns"]) == ("outlines", 3, 48, 64)
    assert [finding["label"] for finding in told["findings"]] == ["organ", "lesion"]
    assert told["findings"][0]["code"] == {"value": "organ", "scheme": "99TEST", "meaning": "organ"}
    assert len(result.to_json()) < 1500
    assert repr(result).startswith("<Segmentation by outlines 3: organ ")
