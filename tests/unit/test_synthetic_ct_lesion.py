"""The abdomen phantoms: valid DICOM, repeatable, true outlines."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from support.validators import dciodvfy

from radserve.contracts import ImageInput
from radserve.dicom import read_image
from radserve.preprocess import check_scope
from radserve_export.spec import load_spec
from radserve_export.synthetic import Sample, Split, ct_lesion, generate, labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC = load_spec(Path(__file__).parents[2] / "export" / "specs" / "ct_lesion.yaml")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(generate("ct_lesion", 40, seed=3, split=Split.TEST))


def read(sample: Sample) -> pydicom.Dataset:
    assert isinstance(sample.source, bytes)
    return pydicom.dcmread(BytesIO(sample.source))


def truth_of(sample: Sample) -> NDArray[np.uint8]:
    assert sample.truth is not None
    return sample.truth


def test_dciodvfy_finds_nothing_wrong(samples: list[Sample], tmp_path: Path) -> None:
    for index, sample in enumerate(samples[:4]):
        path = tmp_path / f"{index}.dcm"
        assert isinstance(sample.source, bytes)
        path.write_bytes(sample.source)
        assert dciodvfy(path) == ["CTImage"]


def test_the_labels_are_those_of_the_spec() -> None:
    assert labels("ct_lesion") == tuple(label.name for label in SPEC.labels)


def test_same_arguments_give_same_bytes_and_truth_whatever_the_count(samples: list[Sample]) -> None:
    again = list(ct_lesion.generate(3, seed=3, split=Split.TEST))
    assert [sample.source for sample in again] == [sample.source for sample in samples[:3]]
    for one, two in zip(again, samples, strict=False):
        assert np.array_equal(truth_of(one), truth_of(two))


@pytest.mark.parametrize(("seed", "split"), [(4, Split.TEST), (3, Split.TRAIN)], ids=["another seed", "another split"])
def test_other_arguments_give_other_patients_and_pixels(samples: list[Sample], seed: int, split: Split) -> None:
    other = [read(sample) for sample in ct_lesion.generate(3, seed=seed, split=split)]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PixelData"):
        assert {read(sample)[keyword].value for sample in samples}.isdisjoint(file[keyword].value for file in other)


def test_every_file_is_in_scope_in_hu_and_as_large_as_its_truth(samples: list[Sample]) -> None:
    assert isinstance(SPEC.input, ImageInput)
    for sample in samples:
        image, truth = read_image(sample.source), truth_of(sample)
        check_scope(image.scope, SPEC.input)
        assert truth.shape == image.values.shape
        assert truth.shape[0] != truth.shape[1]
        assert image.pixel_spacing_mm is not None
        assert np.median(image.values[0]) == pytest.approx(-1000, abs=30)  # air above the patient
        assert 70 < image.values[truth == 1].mean() < 140


def test_lesions_are_darker_than_the_liver_and_wholly_inside_it(samples: list[Sample]) -> None:
    for sample in samples:
        truth = truth_of(sample)
        lesion = truth == 2
        if not lesion.any():
            continue
        values = read_image(sample.source).values
        assert values[lesion].mean() < values[truth == 1].mean() - 25
        around = np.zeros_like(lesion)
        for axis in (0, 1):
            for step in (-1, 1):
                around |= np.roll(lesion, step, axis)
        assert (truth[around & ~lesion] == 1).all()


def test_some_livers_have_no_lesion_and_the_label_says_so(samples: list[Sample]) -> None:
    counts = Counter(sample.label for sample in samples)
    assert counts["liver"] >= 4
    assert counts["liver_lesion"] >= 20
    for sample in samples:
        assert (truth_of(sample) == 2).any() == (sample.label == "liver_lesion")


def test_thresholds_on_the_pixels_are_not_enough(samples: list[Sample]) -> None:
    pictures = [(read_image(sample.source).values, truth_of(sample)) for sample in samples[:20]]

    def dice(value: int, low: float, high: float) -> float:
        found = []
        for values, truth in pictures:
            answer, shown = (values >= low) & (values < high), truth == value
            if shown.any():
                found.append(2 * (answer & shown).sum() / (answer.sum() + shown.sum()))
        return float(np.mean(found))

    windows = [(low, high) for low in range(0, 120, 20) for high in range(low + 20, 180, 20)]
    assert max(dice(1, *window) for window in windows) < 0.85
    assert max(dice(2, *window) for window in windows) < 0.6
