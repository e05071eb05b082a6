"""The head, brain and breast phantoms: valid DICOM, repeatable, true about where the lesion is, and no easy task."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from support.validators import dciodvfy

from radserve.contracts import FixedWindow, ImageInput
from radserve.dicom import read_image
from radserve.preprocess import check_scope, crop_box, image_to_wire
from radserve_export.from_keras.training._generated import wire_samples
from radserve_export.spec import Spec, load_spec
from radserve_export.synthetic import Sample, Split, brain_mri, breast_ultrasound, ct_hemorrhage, generate, labels
from radserve_export.synthetic._mr_file import mr_file
from radserve_export.synthetic._us_file import us_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPECS = Path(__file__).parents[2] / "export" / "specs"
MAKERS = {
    "ct_hemorrhage": ct_hemorrhage.make_sample,
    "brain_mri": brain_mri.make_sample,
    "breast_ultrasound": breast_ultrasound.make_sample,
}
KINDS = {"ct_hemorrhage": "CTImage", "brain_mri": "MRImage", "breast_ultrasound": "USImage"}

of_each = pytest.mark.parametrize("name", MAKERS)


def spec_of(name: str) -> tuple[Spec, ImageInput]:
    spec = load_spec(SPECS / f"{name}.yaml")
    assert isinstance(spec.input, ImageInput)
    return spec, spec.input


def dataset(sample: Sample) -> pydicom.Dataset:
    assert isinstance(sample.source, bytes)
    return pydicom.dcmread(BytesIO(sample.source))


def values(sample: Sample) -> NDArray[np.float32]:
    return read_image(sample.source).values.astype(np.float32)


def complaints(source: bytes, folder: Path) -> list[str]:
    path = folder / "phantom.dcm"
    path.write_bytes(source)
    return dciodvfy(path)


@of_each
@pytest.mark.parametrize("index", range(4))
def test_dciodvfy_finds_nothing_wrong(name: str, index: int, tmp_path: Path) -> None:
    sample = MAKERS[name](index, seed=3, split=Split.TEST)
    assert isinstance(sample.source, bytes)
    assert complaints(sample.source, tmp_path) == [KINDS[name]]


@of_each
def test_classes_are_those_of_the_spec_and_balanced(name: str) -> None:
    counts = Counter(sample.label for sample in generate(name, 10, seed=1, split=Split.TRAIN))
    assert list(labels(name)) == [label.name for label in spec_of(name)[0].labels]
    assert set(counts) == set(labels(name))
    assert max(counts.values()) - min(counts.values()) <= 1


@of_each
def test_same_arguments_give_same_bytes_whatever_the_count(name: str) -> None:
    few = list(generate(name, 3, seed=9, split=Split.TEST))
    more = list(generate(name, 6, seed=9, split=Split.TEST))
    assert few == more[:3]


@of_each
@pytest.mark.parametrize(("seed", "split"), [(2, Split.TRAIN), (1, Split.TEST)], ids=["another seed", "another split"])
def test_other_arguments_give_other_patients_and_pixels(name: str, seed: int, split: Split) -> None:
    one = [dataset(sample) for sample in generate(name, 4, seed=1, split=Split.TRAIN)]
    two = [dataset(sample) for sample in generate(name, 4, seed=seed, split=split)]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PixelData"):
        assert {file[keyword].value for file in one}.isdisjoint(file[keyword].value for file in two)


@of_each
def test_the_contract_accepts_every_file(name: str) -> None:
    for sample in generate(name, 12, seed=4, split=Split.TEST):
        check_scope(read_image(sample.source).scope, spec_of(name)[1])


@of_each
def test_every_lesion_has_its_true_place_on_the_files_own_grid(name: str) -> None:
    for sample in generate(name, 40, seed=6, split=Split.TEST):
        if sample.label == "normal":
            assert sample.truth is None
            continue
        assert sample.truth is not None
        assert sample.truth.shape == values(sample).shape[:2]
        assert set(np.unique(sample.truth)) == {0, labels(name).index(sample.label) + 1}
        assert 0.001 < (sample.truth > 0).mean() < 0.2


@pytest.mark.full
@of_each
def test_a_logistic_regression_on_the_pixels_is_not_enough(name: str) -> None:
    def flat(count: int, split: Split) -> tuple[NDArray[np.float64], list[str]]:
        described = msgspec.structs.replace(spec_of(name)[1], rows=32, columns=32)
        images, found = wire_samples(name, count, described, seed=11, split=split, progress=lambda *_: None)
        return images.mean(axis=-1).reshape(count, -1) / 255, found

    model = LogisticRegression(C=1, max_iter=300, tol=1e-2).fit(*flat(1000, Split.TRAIN))
    assert 0.3 < model.score(*flat(290, Split.TEST)) < 0.85


def test_blood_is_brighter_than_brain_in_hounsfield_units() -> None:
    for sample in generate("ct_hemorrhage", 24, seed=8, split=Split.TEST):
        hu = values(sample)
        brain = hu[(hu > 15) & (hu < 50)]
        assert dataset(sample).RescaleIntercept == -1024
        assert hu.min() < -900
        assert 26 < np.median(brain) < 42
        if sample.truth is not None:
            assert 50 < np.median(hu[sample.truth > 0]) < 95


def test_the_window_is_the_contracts_and_not_the_files() -> None:
    file = dataset(ct_hemorrhage.make_sample(1, seed=8, split=Split.TEST))
    described = spec_of("ct_hemorrhage")[1]
    one = image_to_wire(read_image(file), described)
    file.WindowCenter, file.WindowWidth = 600, 2800
    np.testing.assert_array_equal(image_to_wire(read_image(file), described), one)
    wide = msgspec.structs.replace(described, window=FixedWindow(center=600, width=2800))
    assert (image_to_wire(read_image(file), wide) != one).mean() > 0.2


class TestScaleOfMagnitudes:
    def test_files_differ_in_scale_by_more_than_ten_times(self) -> None:
        brightest = [
            np.percentile(values(sample), 99) for sample in generate("brain_mri", 30, seed=1, split=Split.TEST)
        ]
        assert max(brightest) > 10 * min(brightest)

    @pytest.mark.parametrize("index", range(4))
    def test_percentiles_undo_it_where_a_fixed_window_cannot(self, index: int) -> None:
        described = spec_of("brain_mri")[1]
        fixed = msgspec.structs.replace(described, window=FixedWindow(center=500, width=1000))

        def wire(factor: float, described: ImageInput) -> NDArray[np.int64]:
            section, _ = brain_mri.make_section(index, seed=2, split=Split.TEST, factor=factor)
            return image_to_wire(read_image(mr_file(section)), described).astype(np.int64)

        # What is left is the rounding to stored integers: one of about 300.
        assert np.abs(wire(300, described) - wire(1500, described)).max() <= 3
        assert np.abs(wire(300, fixed) - wire(1500, fixed)).mean() > 20


class TestBurnedInText:
    @pytest.mark.parametrize("photometric", ["RGB", "PALETTE COLOR"])
    @pytest.mark.parametrize("text", ["", "PHANTOM UNIT 0417 MI 1.1"])
    def test_all_variants_are_valid(
        self, photometric: Literal["RGB", "PALETTE COLOR"], text: str, tmp_path: Path
    ) -> None:
        scan, _ = breast_ultrasound.make_scan(1, seed=3, split=Split.TEST)
        assert complaints(us_file(replace(scan, photometric=photometric, text=text)), tmp_path) == [
            KINDS["breast_ultrasound"]
        ]

    @pytest.mark.parametrize("index", range(4))
    def test_it_does_not_reach_the_wire(self, index: int) -> None:
        scan, _ = breast_ultrasound.make_scan(index, seed=5, split=Split.TEST)
        described = spec_of("breast_ultrasound")[1]
        whole = msgspec.structs.replace(described, crop=None)
        one, two = (
            read_image(us_file(replace(scan, text=text))) for text in ("", "ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789.")
        )
        assert two.scope.burned_in_annotation == "YES"
        assert (image_to_wire(one, whole) != image_to_wire(two, whole)).any()
        np.testing.assert_array_equal(image_to_wire(one, described), image_to_wire(two, described))

    def test_the_crop_takes_little_more_than_its_band(self) -> None:
        for sample in generate("breast_ultrasound", 8, seed=5, split=Split.TEST):
            rows, columns = values(sample).shape[:2]
            top = crop_box(rows, columns, spec_of("breast_ultrasound")[1].crop)[0]
            assert breast_ultrasound.BAND * rows <= top <= breast_ultrasound.BAND * rows + 4

    def test_it_says_nothing_about_the_class_and_names_nobody(self) -> None:
        scans = [breast_ultrasound.make_scan(index, seed=1, split=Split.TRAIN)[0] for index in range(80)]
        by_class = [{bool(scan.text) for scan in scans[start::4]} for start in range(4)]
        assert by_class == [{False, True}] * 4
        words = {word for scan in scans for word in scan.text.split() if word.isalpha()}
        assert words <= {"PHANTOM", "UNIT", "SYNTHETIC", "LAB", "TEST", "SUITE", "DEMO", "ROOM", "MI"}
        assert {
            dataset(sample).BurnedInAnnotation
            for sample in generate("breast_ultrasound", 12, seed=1, split=Split.TRAIN)
        } == {
            "YES",
            "NO",
        }

    @pytest.mark.parametrize("index", range(4))
    def test_palette_and_rgb_give_one_wire_picture(self, index: int) -> None:
        scan, _ = breast_ultrasound.make_scan(index, seed=5, split=Split.TEST)
        rgb, palette = (
            image_to_wire(read_image(us_file(replace(scan, photometric=kind))), spec_of("breast_ultrasound")[1])
            for kind in ("RGB", "PALETTE COLOR")
        )
        assert rgb.shape == (64, 64, 3)
        np.testing.assert_array_equal(rgb, palette)
