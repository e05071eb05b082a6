"""Series and multi-frame files: to the wire, and their answers to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from support.datasets import make
from support.outlines import LEVELS
from support.series import enhanced
from support.studies import DRAWN, SIZE, classified, contract, segmented, series

from radserve import Classification, _codec
from radserve.contracts import (
    Combination,
    EveryImage,
    Label,
    PercentileWindow,
    Task,
    WholeVolume,
    dump_contract,
    parse_contract,
)
from radserve.errors import (
    ContractError,
    DecodeError,
    InconsistentSeriesError,
    InferenceFailedError,
    InputError,
    OutOfScopeError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def test_every_image_of_a_series_is_a_row_in_the_order_of_the_slices() -> None:
    prepared = _codec.prepare(contract(EveryImage()), series()[::-1])
    assert prepared.inputs["PIXELS"].shape == (12, 20, 25, 1)
    assert prepared.sop_instance_uids == tuple(f"1.2.840.2.{number}" for number in range(1, 13))
    assert prepared.inputs["PIXELS"].reshape(12, -1).any(axis=1).tolist() == [False] * 3 + [True] * 6 + [False] * 3


def test_a_row_is_what_the_image_alone_would_be() -> None:
    rows = _codec.prepare(contract(EveryImage()), series()).inputs["PIXELS"]
    alone = _codec.prepare(contract(None), series()[4]).inputs["PIXELS"]
    np.testing.assert_array_equal(rows[4:5], alone)


def test_a_study_travels_in_batches_that_the_model_takes() -> None:
    prepared = _codec.prepare(contract(EveryImage()), series())
    parts = [batch["PIXELS"] for batch in _codec.batches(prepared, 5)]
    assert [len(part) for part in parts] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(parts), prepared.inputs["PIXELS"])


@pytest.mark.parametrize(
    ("combination", "expected"),
    [
        (Combination.MAXIMUM, (0.5, 0.75)),
        (Combination.MEAN, (0.25, 0.5)),
        (Combination.NOISY_OR, (1 - 0.5 * 0.75 * 1, 1 - 0.5 * 0.75 * 0.25)),
    ],
)
def test_answers_become_the_studys(combination: Combination, expected: tuple[float, float]) -> None:
    rows = [(0.5, 0.5), (0.25, 0.25), (0, 0.75)]
    found = classified(EveryImage(combination=combination), rows, series(DRAWN[3:6]))
    told = {finding.label: finding.probability for finding in found.findings}
    assert (told["normal"], told["opacity"]) == pytest.approx(expected)
    assert [finding.is_positive for finding in found.findings] == [
        finding.probability >= finding.threshold for finding in found.findings
    ]
    assert found.top.label == "opacity"


@pytest.mark.parametrize("combination", Combination)
def test_exclusive_labels_are_combined_by_their_mean_alone(combination: Combination) -> None:
    plain = contract(EveryImage(combination=combination))
    told = msgspec.json.decode(dump_contract(plain))
    told["exclusive"] = True
    if combination is Combination.MEAN:
        assert parse_contract(msgspec.json.encode(told)).exclusive
    else:
        with pytest.raises(ContractError, match="combination: mean"):
            parse_contract(msgspec.json.encode(told))


def test_the_band_of_the_study_is_the_labels() -> None:
    label = Label(name="opacity", code=contract(None).labels[0].code, threshold=0.5, indeterminate=(0.4, 0.7))
    labels = (msgspec.structs.replace(label, name="normal", indeterminate=None), label)
    found = classified(
        EveryImage(combination=Combination.NOISY_OR), [(0.1, 0.2), (0.1, 0.3)], series(DRAWN[3:5]), labels=labels
    )
    assert (found.top.label, found.top.is_indeterminate, found.top.is_positive) == ("opacity", True, False)
    assert not found.findings[1].is_indeterminate


def test_a_probability_on_the_threshold_is_positive_as_on_the_server() -> None:
    labels = tuple(msgspec.structs.replace(label, threshold=0.7) for label in contract(None).labels)
    described = msgspec.structs.replace(contract(EveryImage()), labels=labels)
    prepared = _codec.prepare(described, series(DRAWN[3:5]))
    values = np.array([(0.1, 0.7), (0.1, 0.2)], np.float32)
    decisions = np.array([(0, 2), (0, 0)], np.int8)
    answer = _codec.Answer(arrays={"PROBABILITIES": values, "DECISIONS": decisions}, request_id="r")
    result = _codec.combine(described, prepared, [answer])
    assert isinstance(result, Classification)
    assert result.top.is_positive


def test_every_image_keeps_its_own_answer_and_name() -> None:
    found = classified(EveryImage(), [(0.1, 0.2)] * 11 + [(0.1, 0.9)], series())
    assert [image.sop_instance_uid for image in found.images] == list(found.provenance.sop_instance_uids)
    assert [image.findings[0].is_positive for image in found.images] == [False] * 11 + [True]
    assert found.provenance.request_id == "r0,r1"
    assert len(found.to_dict()["images"]) == 12


def test_frames_are_named_by_number() -> None:
    found = classified(EveryImage(), [(0.1, 0.2)] * 3, enhanced(series(DRAWN[3:6])))
    assert [(image.sop_instance_uid, image.frame_number) for image in found.images] == [
        ("1.2.3", 1), ("1.2.3", 2), ("1.2.3", 3)
    ]  # fmt: skip
    assert found.provenance.sop_instance_uids == ("1.2.3",)
    assert found.provenance.frame_numbers == (1, 2, 3)


def test_one_frame_can_be_chosen_of_a_study() -> None:
    frames = enhanced(series(DRAWN[3:6]))
    prepared = _codec.prepare(contract(EveryImage()), frames, frame=1)
    assert prepared.images == (("1.2.3", 2),)
    assert prepared.frame_numbers == (2,)
    with pytest.raises(OutOfScopeError, match="has 1 images: the model reads 2 to 9"):
        _codec.prepare(contract(EveryImage(images=(2, 9))), frames, frame=1)


def test_a_folder_is_a_study(tmp_path: Path) -> None:
    for number, one in enumerate(series()):
        one.save_as(tmp_path / f"{number}", enforce_file_format=True)
    found = _codec.prepare(contract(EveryImage()), tmp_path)
    np.testing.assert_array_equal(
        found.inputs["PIXELS"], _codec.prepare(contract(EveryImage()), series()).inputs["PIXELS"]
    )


def test_a_folder_with_one_damaged_file_is_refused_for_that_file(tmp_path: Path) -> None:
    for number, one in enumerate(series()[:3]):
        one.save_as(tmp_path / f"{number}", enforce_file_format=True)
    (tmp_path / "1").write_bytes((tmp_path / "1").read_bytes()[:-100])
    with pytest.raises(DecodeError, match=r"file 2 of 3: .* truncated"):
        _codec.prepare(contract(EveryImage()), tmp_path)


@pytest.mark.parametrize(("images", "count"), [((1, 5), 12), ((13, 20), 12)])
def test_a_study_of_another_size_is_refused(images: tuple[int, int], count: int) -> None:
    with pytest.raises(OutOfScopeError, match=f"has {count} images"):
        _codec.prepare(contract(EveryImage(images=images)), series())


def test_images_of_several_sizes_are_classified_but_not_stacked() -> None:
    # Without places in the patient, as radiographs are.
    views = [
        make(Rows=rows, Columns=30, PixelData=np.arange(rows * 30, dtype="<u2").tobytes(), SeriesInstanceUID="1.1",
             SOPInstanceUID=f"1.1.{rows}")
        for rows in (20, 25)
    ]  # fmt: skip
    assert len(_codec.prepare(contract(EveryImage()), views).inputs["PIXELS"]) == 2
    with pytest.raises(InconsistentSeriesError, match="one label map"):
        _codec.prepare(contract(EveryImage(), Task.IMAGE_SEGMENTATION), views)


def test_only_a_study_without_any_contrast_is_refused() -> None:
    assert _codec.prepare(contract(EveryImage()), series()).inputs["PIXELS"][0].max() == 0
    with pytest.raises(OutOfScopeError, match="no image of the study has contrast"):
        _codec.prepare(contract(EveryImage()), series(DRAWN[:3]))


def test_an_empty_slice_does_not_break_a_window_of_percentiles() -> None:
    described = contract(EveryImage(), window=PercentileWindow(lower=0, upper=100))
    assert _codec.prepare(described, series()).inputs["PIXELS"][:, ...].max(axis=(1, 2, 3)).tolist()[2:4] == [0, 255]


def test_the_scope_of_every_file_is_checked_before_any_is_decoded() -> None:
    made = series()
    made[7].PatientAge = "010Y"
    for one in made:
        one.PixelData = b"\0\0"
    with pytest.raises(OutOfScopeError, match="PatientAge"):
        _codec.prepare(contract(EveryImage(), age_years=(18, 99)), made)


def test_label_maps_are_stacked_on_the_sources_grid() -> None:
    result = segmented(contract(EveryImage(), Task.IMAGE_SEGMENTATION), series()[::-1])
    assert result.label_map.shape == SIZE
    assert ((result.label_map > 0) == (DRAWN > 0)).mean() > 0.98
    assert result.geometry is not None
    assert (result.geometry.position_mm, result.geometry.slice_spacing_mm) == ((-10, -20, 30), 5)
    assert [region.pixel_count for region in result.findings] == [int((result.label_map == k).sum()) for k in (1, 2)]
    assert [region.area_mm2 for region in result.findings] == [None, None]


@pytest.mark.parametrize("study", [EveryImage(), WholeVolume(slices=12), WholeVolume(slices=12, spacing_mm=(4, 1, 1))])
def test_regions_of_a_stack_have_a_volume(study: Any) -> None:
    made = series(spacing_mm=(3.75, 0.5, 2))
    made[5].ImagePositionPatient[2] += 0.3  # each distance is off, the mean of all is not
    result = segmented(contract(study, Task.IMAGE_SEGMENTATION), made[::-1])
    organ, lesion = result.findings
    assert organ.volume_mm3 == pytest.approx(organ.pixel_count * 3.75)
    assert lesion.volume_mm3 == pytest.approx(lesion.pixel_count * 3.75)
    assert lesion.volume_mm3
    assert (organ.area_mm2, organ.to_dict()["volume_mm3"]) == (None, pytest.approx(organ.volume_mm3, rel=1e-5))


def tilted() -> list[Any]:
    made = series()
    for number, one in enumerate(made):
        one.ImagePositionPatient[1] += number
    return made


@pytest.mark.parametrize(
    ("source", "study"),
    [
        (series()[4:5], EveryImage()),
        (series(ImagePositionPatient=None), EveryImage()),
        (tilted(), EveryImage()),
        (np.array(LEVELS)[DRAWN], EveryImage()),
        (np.array(LEVELS)[DRAWN], WholeVolume(slices=12)),
        (series()[:5] + series()[6:], EveryImage(maximum_gap=1)),
        (series()[4], None),
    ],
    ids=["one image", "no place", "tilt", "array", "array of a volume", "uneven", "no study"],
)
def test_where_the_geometry_does_not_say_it_there_is_no_volume(source: Any, study: Any) -> None:
    result = segmented(contract(study, Task.IMAGE_SEGMENTATION), source)
    assert [region.volume_mm3 for region in result.findings] == [None, None]


def test_arrays_are_studies_too() -> None:
    values = np.array(LEVELS)[DRAWN]
    np.testing.assert_array_equal(
        _codec.prepare(contract(EveryImage()), values).inputs["PIXELS"],
        _codec.prepare(contract(EveryImage()), series()).inputs["PIXELS"],
    )
    np.testing.assert_array_equal(
        _codec.prepare(contract(WholeVolume(slices=9)), values).inputs["PIXELS"],
        _codec.prepare(contract(WholeVolume(slices=9)), series()).inputs["PIXELS"],
    )
    wire = np.zeros((3, 20, 25, 1), np.uint8)
    assert len(_codec.prepare(contract(EveryImage()), wire).images) == 3
    with pytest.raises(OutOfScopeError, match="known spacing"):
        _codec.prepare(contract(WholeVolume(slices=12, spacing_mm=(1, 1, 1))), values)


@pytest.mark.parametrize(
    ("study", "source", "frame", "match"),
    [
        (None, series(), None, "answers one file"),
        (WholeVolume(slices=12), enhanced(series()), 1, "leave frame= out"),
        (EveryImage(), series(), 1, "a frame of one file"),
    ],
)
def test_what_does_not_fit_the_models_study_is_refused(study: Any, source: Any, frame: int | None, match: str) -> None:
    with pytest.raises(InputError, match=match):
        _codec.prepare(contract(study), source, frame=frame)


def test_a_label_map_of_a_study_is_checked_too() -> None:
    described = contract(EveryImage(), Task.IMAGE_SEGMENTATION)
    prepared = _codec.prepare(described, series(DRAWN[3:5]))
    wrong = _codec.Answer(arrays={"LABEL_MAP": np.full((2, 20, 25), 9, np.uint8)}, request_id="r")
    with pytest.raises(InferenceFailedError, match="no label's"):
        _codec.combine(described, prepared, [wrong])


def test_a_contradiction_in_any_row_is_no_answer() -> None:
    described = contract(EveryImage())
    prepared = _codec.prepare(described, series(DRAWN[3:5]))
    arrays: dict[str, NDArray[Any]] = {
        "PROBABILITIES": np.array([(0.1, 0.9), (0.1, 0.9)], np.float32),
        "DECISIONS": np.array([(0, 2), (0, 0)], np.int8),
    }
    with pytest.raises(InferenceFailedError, match="contradicts its threshold"):
        _codec.combine(described, prepared, [_codec.Answer(arrays=arrays, request_id="r")])
