"""A user's own training data: MedMNIST files, and folders of DICOM files with a CSV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from radserve.errors import SpecError
from radserve_export.from_keras.training import load_dataset, train_model
from radserve_export.spec import Spec, load_spec
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.from_keras.training import Dataset, Progress

SPECS = Path(__file__).resolve().parents[2] / "export" / "specs"


def quiet(description: str, done: int, total: int) -> None:
    assert 0 <= done <= total, description


def two_labels() -> Spec:
    spec = load_spec(SPECS / "chest_xray.yaml")
    return msgspec.structs.replace(spec, labels=spec.labels[:2])


def save_npz(path: Path, images: NDArray[np.generic], labels: NDArray[np.generic]) -> Path:
    np.savez(path, train_images=images, train_labels=labels)
    return path


def test_medmnist_file_is_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    labels = np.arange(10, dtype=np.uint8).reshape(-1, 1) % 2
    found, kept_apart = load_dataset(two_labels(), save_npz(tmp_path / "pneumonia.npz", images, labels), None, quiet)
    assert kept_apart is None
    assert found.x.shape == (10, 28, 28, 1)
    assert np.array_equal(found.x[..., 0], images)
    assert found.y.tolist() == [0, 1] * 5


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec of two labels, trained in the fewest epochs; bright images show the second."""
    spec = (SPECS / "chest_xray.yaml").read_text(encoding="utf-8")
    spec = spec[: spec.index("  - name: nodule")] + "training: {generator: chest_xray, samples: 1, seed: 1}\n"
    (tmp_path / "own.yaml").write_text(spec.replace("../trained/chest_xray.keras", "own.keras"), encoding="utf-8")
    from radserve_export.from_keras.training import chest_xray  # noqa: PLC0415 - imports TensorFlow

    monkeypatch.setattr(chest_xray, "_RECIPE", replace(chest_xray._RECIPE, images_seen=1))
    return tmp_path / "own.yaml"


def _bright_or_not(path: Path, *, n: int, kept_apart: int) -> Path:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    images = (rng.integers(0, 60, (n, 28, 28)) + 150 * labels[:, None, None]).astype(np.uint8)
    arrays = {"train_images": images[kept_apart:], "train_labels": labels[kept_apart:]}
    if kept_apart:
        arrays |= {"test_images": images[:kept_apart], "test_labels": labels[:kept_apart]}
    np.savez(path, **arrays)  # type: ignore[arg-type] # NumPy takes the names for its own option's
    return path


@pytest.mark.parametrize(("kept_apart", "measured"), [(60, 60), (0, 51)], ids=["by the data set", "at random"])
def test_what_was_not_trained_on_measures_the_training(
    own: Path, monkeypatch: pytest.MonkeyPatch, kept_apart: int, measured: int
) -> None:
    data = _bright_or_not(own.with_name("data.npz"), n=260, kept_apart=kept_apart)
    from radserve_export.from_keras.training import chest_xray  # noqa: PLC0415 - imports TensorFlow

    seen: list[NDArray[np.generic]] = []
    train = chest_xray.train

    def watched(spec: Spec, dataset: Dataset, progress: Progress) -> object:
        seen.append(dataset.x)
        return train(spec, dataset, progress)

    monkeypatch.setattr(chest_xray, "train", watched)
    trained = train_model(own, None, data, None, quiet)
    assert trained.measured == measured
    assert len(seen[0]) == 260 - measured
    assert trained.accuracy is not None
    assert trained.accuracy > 0.95


def test_of_few_samples_none_is_held_out(own: Path) -> None:
    data = _bright_or_not(own.with_name("data.npz"), n=5, kept_apart=0)
    trained = train_model(own, None, data, None, quiet)
    assert (trained.accuracy, trained.measured) == (None, 0)


@pytest.mark.parametrize("output", [None, "other.keras"])
@pytest.mark.parametrize("own_data", [False, True])
def test_a_model_that_is_there_is_not_overwritten(own: Path, output: str | None, *, own_data: bool) -> None:
    there = own.with_name(output or "own.keras")
    there.write_bytes(b"weeks of work")
    data = own.with_name("gone.npz") if own_data else None
    with pytest.raises(SpecError, match=rf"{there.name} is there already: name another .* --output, or .* --force"):
        train_model(own, there if output else None, data, None, quiet)
    assert there.read_bytes() == b"weeks of work"


def test_a_tokenizer_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "report_triage.tokenizer.json").write_text("mine")
    with pytest.raises(SpecError, match=r"tokenizer\.json is there already"):
        train_model(SPECS / "report_triage.yaml", tmp_path / "mine.keras", None, None, quiet)


def test_force_overwrites(own: Path) -> None:
    own.with_name("own.keras").write_bytes(b"old")
    trained = train_model(
        own, None, _bright_or_not(own.with_name("data.npz"), n=5, kept_apart=0), None, quiet, force=True
    )
    assert trained.size_bytes == own.with_name("own.keras").stat().st_size > 3


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((4, 64, 64), np.uint8), np.zeros((4, 1), np.uint8)),
        (np.zeros((4, 28, 28), np.float32), np.zeros((4, 1), np.uint8)),
        (np.zeros((4, 28, 28), np.uint8), np.full((4, 1), 2, np.uint8)),
        (np.zeros((4, 28, 28), np.uint8), np.zeros((3, 1), np.uint8)),
        (np.zeros((0, 28, 28), np.uint8), np.zeros((0, 1), np.uint8)),
    ],
    ids=["size", "dtype", "label out of range", "count", "empty"],
)
def test_medmnist_file_that_does_not_fit_is_refused(
    tmp_path: Path, images: NDArray[np.generic], labels: NDArray[np.generic]
) -> None:
    with pytest.raises(SpecError):
        load_dataset(two_labels(), save_npz(tmp_path / "x.npz", images, labels), None, quiet)


def test_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(SpecError, match="MedMNIST"):
        load_dataset(two_labels(), path, None, quiet)


@pytest.mark.parametrize("name", ["chest_xray", "ecg_rhythm"])
def test_folder_of_dicom_files_is_read_by_the_sdk(name: str, tmp_path: Path) -> None:
    spec = load_spec(SPECS / f"{name}.yaml")
    lines, expected = ["file,label"], []
    for index, sample in enumerate(generate(name, 3, seed=1, split=Split.TRAIN)):
        assert isinstance(sample.source, bytes)
        (tmp_path / f"{index}.dcm").write_bytes(sample.source)
        lines.append(f"{index}.dcm,{sample.label}")
        expected.append([label.name for label in spec.labels].index(sample.label))
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(lines))
    found, _ = load_dataset(spec, tmp_path, table, quiet)
    assert found.y.tolist() == expected
    assert found.x.dtype == np.dtype(spec.input.wire_dtype.lower())  # type: ignore[union-attr]


def test_a_single_label_is_shown_or_not(tmp_path: Path) -> None:
    spec = load_spec(SPECS / "chest_xray.yaml")
    spec = msgspec.structs.replace(spec, labels=spec.labels[1:2], exclusive=False)
    (sample,) = generate("chest_xray", 1, seed=1, split=Split.TRAIN)
    assert isinstance(sample.source, bytes)
    (tmp_path / "x.dcm").write_bytes(sample.source)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"x.dcm,{called}\n" for called in ("opacity", "1", "0", "not opacity")))
    found, _ = load_dataset(spec, tmp_path, table, quiet)
    assert found.y.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gone.dcm,normal", "labels.csv:2: no such file"),
        ("junk.dcm,normal", "labels.csv:2: "),
        ("junk.dcm,fracture", "labels.csv:2: the label is none of"),
        ("junk.dcm", "labels.csv:2: the line has fewer values than the first one has names"),
        ("junk.dcm,normal,1", "labels.csv:2: the line has more values than the first one has names"),
        ("\n\njunk.dcm,fracture", "labels.csv:4: the label is none of"),
    ],
)
def test_bad_line_is_named_and_its_file_is_not(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "junk.dcm").write_bytes(b"junk")
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\n{line}\n")
    with pytest.raises(SpecError, match=message) as caught:
        load_dataset(load_spec(SPECS / "chest_xray.yaml"), tmp_path, table, quiet)
    assert ".dcm" not in str(caught.value)


def test_a_line_that_ends_before_the_file_is_named_too(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("label,file\nnormal\n")
    with pytest.raises(SpecError, match=r"labels\.csv:2: the line has fewer values"):
        load_dataset(load_spec(SPECS / "chest_xray.yaml"), tmp_path, table, quiet)


def test_folder_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--labels"):
        load_dataset(two_labels(), tmp_path, None, quiet)


def test_spec_without_a_reference_network_is_refused(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: x\ntask: tensors\nmodel: x.keras\n")
    with pytest.raises(SpecError, match=r"training\.generator"):
        train_model(spec, None, None, None, quiet)
