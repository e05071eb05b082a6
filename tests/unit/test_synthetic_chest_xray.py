"""The chest phantoms: valid DICOM, repeatable, and no task for a linear model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from support.validators import dciodvfy

from radserve.contracts import ImageInput
from radserve.dicom import read_image
from radserve.preprocess import check_scope, image_to_wire
from radserve_export.from_keras.training._generated import wire_samples
from radserve_export.spec import load_spec
from radserve_export.synthetic import Split, chest_xray, generate
from radserve_export.synthetic._dx_file import dx_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
PHOTOMETRIC: tuple[Photometric, ...] = get_args(Photometric)
SPEC = load_spec(Path(__file__).parents[2] / "export" / "specs" / "chest_xray.yaml")


@pytest.fixture(scope="module")
def described() -> ImageInput:
    assert isinstance(SPEC.input, ImageInput)
    return SPEC.input


def wire(source: bytes | str, described: ImageInput) -> NDArray[np.uint8]:
    return image_to_wire(read_image(source), described).astype(np.uint8, casting="safe")


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
@pytest.mark.parametrize("index", range(len(chest_xray.LABELS)), ids=chest_xray.LABELS)
def test_dciodvfy_finds_nothing_wrong(index: int, photometric: Photometric, tmp_path: Path) -> None:
    radiograph = chest_xray.make_radiograph(index, seed=3, split=Split.TEST)
    path = tmp_path / "phantom.dcm"
    path.write_bytes(dx_file(replace(radiograph, photometric=photometric)))
    assert dciodvfy(path) == ["DXImageForPresentation"]


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_both_views_are_valid(view: Literal["PA", "AP"], tmp_path: Path) -> None:
    path = tmp_path / "phantom.dcm"
    path.write_bytes(dx_file(replace(chest_xray.make_radiograph(0, seed=3, split=Split.TEST), view=view)))
    assert dciodvfy(path) == ["DXImageForPresentation"]


def test_classes_are_balanced() -> None:
    counts = Counter(sample.label for sample in generate("chest_xray", 20, seed=1, split=Split.TRAIN))
    assert set(counts) == {label.name for label in SPEC.labels}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_same_arguments_give_same_bytes_whatever_the_count() -> None:
    few = list(chest_xray.generate(3, seed=9, split=Split.TEST))
    more = list(chest_xray.generate(6, seed=9, split=Split.TEST))
    assert few == more[:3]


@pytest.mark.parametrize(("seed", "split"), [(2, Split.TRAIN), (1, Split.TEST)], ids=["another seed", "another split"])
def test_other_arguments_give_other_patients_and_pixels(seed: int, split: Split) -> None:
    one = [pydicom.dcmread(BytesIO(s.source)) for s in chest_xray.generate(4, seed=1, split=Split.TRAIN)]  # type: ignore[arg-type]
    two = [pydicom.dcmread(BytesIO(s.source)) for s in chest_xray.generate(4, seed=seed, split=split)]  # type: ignore[arg-type]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PixelData"):
        assert {file[keyword].value for file in one}.isdisjoint(file[keyword].value for file in two)


def test_files_vary_as_real_ones_do() -> None:
    samples = chest_xray.generate(40, seed=1, split=Split.TEST)
    files = [pydicom.dcmread(BytesIO(sample.source)) for sample in samples]  # type: ignore[arg-type]
    assert {file.PhotometricInterpretation for file in files} == set(PHOTOMETRIC)
    assert {file.ViewPosition for file in files} == {"PA", "AP"}
    assert {str(file.PatientName) for file in files} == {"PHANTOM^SYNTHETIC"}
    assert len({(file.WindowCenter, file.WindowWidth) for file in files}) > 30
    assert len({file.pixel_array.shape for file in files}) > 30
    assert all(file.BitsStored == 12 and file.pixel_array.max() < 4096 for file in files)


def test_the_contract_accepts_every_file(described: ImageInput) -> None:
    for sample in chest_xray.generate(12, seed=4, split=Split.TEST):
        check_scope(read_image(sample.source).scope, described)


@pytest.mark.parametrize("index", range(len(chest_xray.LABELS)), ids=chest_xray.LABELS)
def test_both_photometric_interpretations_give_one_wire_picture(index: int, described: ImageInput) -> None:
    radiograph = chest_xray.make_radiograph(index, seed=5, split=Split.TEST)
    one, two = (wire(dx_file(replace(radiograph, photometric=p)), described).astype(int) for p in PHOTOMETRIC)
    # Equal in exact arithmetic; float32 may round a half the other way.
    assert np.abs(one - two).max() <= 1
    assert (one != two).mean() < 0.01


def test_a_logistic_regression_on_the_pixels_is_not_enough(described: ImageInput) -> None:
    def flat(count: int, split: Split) -> tuple[NDArray[np.float64], list[str]]:
        images, labels = wire_samples("chest_xray", count, described, seed=11, split=split, progress=lambda *_: None)
        return images.reshape(count, -1).astype(np.float64) / 255, labels

    model = LogisticRegression(C=10, max_iter=1000, tol=1e-3).fit(*flat(2000, Split.TRAIN))
    accuracy = model.score(*flat(300, Split.TEST))
    assert 0.35 < accuracy < 0.85


def test_a_lesion_that_has_a_place_comes_with_it() -> None:
    for sample in chest_xray.generate(24, seed=6, split=Split.TEST):
        if sample.label in {"normal", "cardiomegaly"}:
            assert sample.truth is None
            continue
        assert sample.truth is not None
        assert sample.truth.shape == read_image(sample.source).values.shape
        assert set(np.unique(sample.truth)) == {0, chest_xray.LABELS.index(sample.label) + 1}
        assert 0.001 < (sample.truth > 0).mean() < 0.25
