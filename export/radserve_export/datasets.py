"""Generated data, and a user's own, brought to the wire by the SDK's own preprocessing."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from radserve.contracts import ImageInput, TextInput, WaveformInput, WholeVolume
from radserve.dicom import open_dicom
from radserve.errors import InputError, SpecError
from radserve.preprocess import check_scope, image_to_wire, waveform_to_wire
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training data as the SDK's preprocessing gives it.

    Attributes:
        x: Wire arrays ``(n, *wire shape)``.
        y: Index into the spec's labels, ``(n,)`` int64.
        places: Where in each image its label's lesion lies, ``(n, rows, columns)``:
            the share of each wire pixel; 0 throughout where it has no place. None
            where nobody knows.
    """

    x: NDArray[np.generic]
    y: NDArray[np.int64]
    places: NDArray[np.float32] | None = None


class Progress(Protocol):
    """Told how far a long work is."""

    def __call__(self, description: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of ``description`` are finished."""


def held_out(spec: Spec, folder: Path, progress: Progress) -> Dataset:
    """What a spec's ``calibrate`` block names.

    Args:
        spec: The spec.
        folder: Where it lies.
        progress: Told after each file.

    Returns:
        Wire arrays; of a text model the texts, ``(n,)`` objects.

    Raises:
        SpecError: There is no such block, or the data does not fit the spec.
    """
    plan = spec.calibrate
    if plan is None:
        msg = f"{spec.name}: the spec has no calibrate block"
        raise SpecError(msg)
    if plan.data is not None:
        table = folder / plan.labels if plan.labels else None
        everything, kept_apart = load_dataset(spec, folder / plan.data, table, progress)
        if kept_apart is None and table is None:
            msg = f"calibrate.data: {plan.data} keeps no test_images apart: what was trained on cannot calibrate"
            raise SpecError(msg)
        return kept_apart or everything
    samples = list(generate(str(plan.generator), plan.samples, seed=plan.seed, split=Split.TRAIN))
    names = [label.name for label in spec.labels]
    y = [int(s.label == names[0]) if len(names) == 1 else names.index(s.label) for s in samples]
    if isinstance(spec.input, TextInput):
        x = np.array([str(sample.source) for sample in samples], dtype=object)
    else:
        x = np.stack([to_wire(spec, sample.source) for sample in samples if isinstance(sample.source, bytes)])
    return Dataset(x=x, y=np.asarray(y, np.int64))


def load_dataset(spec: Spec, data: Path, labels: Path | None, progress: Progress) -> tuple[Dataset, Dataset | None]:
    """Read a user's own training data.

    Args:
        spec: Says the labels and the preprocessing.
        data: A MedMNIST ``.npz`` (``train_images``, ``train_labels``) whose images
            have the spec's size, or a folder of DICOM files.
        labels: For a folder: a CSV file with the columns ``file`` (relative to
            the folder) and ``label`` (a label's name, or its number from 0).
        progress: Told after each file.

    Returns:
        What to train on, and what the data set itself keeps apart for testing
        (``test_images``, ``test_labels``), if it does.

    Raises:
        SpecError: The data cannot be read or does not fit the spec. The message
            names the CSV's line, never the file.
    """
    if data.is_dir():
        if labels is None:
            msg = "a folder of DICOM files needs --labels FILE.csv with the columns file and label"
            raise SpecError(msg)
        return _load_folder(spec, data, labels, progress), None
    return _load_npz(spec, data)


def _load_npz(spec: Spec, path: Path) -> tuple[Dataset, Dataset | None]:
    if not path.is_file():
        msg = f"there is no file {path}"
        raise SpecError(msg)
    try:
        with np.load(path, allow_pickle=False) as archive:
            train = archive["train_images"], archive["train_labels"]
            test = (archive["test_images"], archive["test_labels"]) if "test_images" in archive else None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        msg = f"{path} is not a MedMNIST file with train_images and train_labels ({type(error).__name__})"
        raise SpecError(msg) from error
    return _of_wire(spec, path, *train), _of_wire(spec, path, *test) if test else None


def _of_wire(spec: Spec, path: Path, x: NDArray[np.generic], y: NDArray[np.generic]) -> Dataset:
    if isinstance(spec.input, ImageInput):
        expected: tuple[int, ...] = (*spec.input.grid, spec.input.channels)
        x = x[..., np.newaxis] if x.ndim == len(expected) else x
    elif isinstance(spec.input, WaveformInput):
        expected = (spec.input.samples, len(spec.input.leads))
    else:
        msg = f"training of {spec.name} does not take arrays: leave --data out"
        raise SpecError(msg)
    dtype = np.dtype(spec.input.wire_dtype.lower())
    if x.shape[1:] != expected or x.dtype != dtype:
        msg = f"{path}: the images are {x.dtype} {x.shape[1:]}, the spec's input is {dtype} {expected}"
        raise SpecError(msg)
    return _checked(spec, x, y.reshape(-1))


def _load_folder(spec: Spec, folder: Path, labels: Path, progress: Progress) -> Dataset:
    try:
        with labels.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"cannot read {labels}: {getattr(error, 'strerror', None) or 'it is not a CSV file in UTF-8'}"
        raise SpecError(msg) from error
    if not rows or not {"file", "label"} <= set(reader.fieldnames or ()):
        msg = f"{labels} needs a first line 'file,label' and at least one more"
        raise SpecError(msg)
    names = _indices(spec)
    x, y = [], []
    for done, (line, row) in enumerate(rows, start=1):
        where = f"{labels}:{line}"
        if None in row or None in row.values():
            msg = f"{where}: the line has {'more' if None in row else 'fewer'} values than the first one has names"
            raise SpecError(msg)
        if row["label"] not in names:
            msg = f"{where}: the label is none of {', '.join(label.name for label in spec.labels)}"
            raise SpecError(msg)
        path = folder / row["file"]
        if not path.is_file():
            msg = f"{where}: no such file"
            raise SpecError(msg)
        try:
            x.append(to_wire(spec, path))
        except InputError as error:
            msg = f"{where}: {error}"
            raise SpecError(msg) from error
        y.append(names[row["label"]])
        progress("reading files", done, len(rows))
    return _checked(spec, np.stack(x), np.asarray(y))


def _indices(spec: Spec) -> dict[str, int]:
    """What a label may be called, and its number: of a single-label model 1 for those that show it."""
    first = spec.labels[0].name
    names = (
        {f"not {first}": 0, first: 1}
        if len(spec.labels) == 1
        else {label.name: index for index, label in enumerate(spec.labels)}
    )
    return names | {str(index): index for index in names.values()}


def to_wire(spec: Spec, source: Path | bytes) -> NDArray[np.generic]:
    """What the SDK would send of a DICOM file, without the batch axis.

    Args:
        spec: Says the input.
        source: The file, or its content.

    Raises:
        InputError: The file cannot be read, or is outside the model's scope.
        SpecError: The model takes no files.
    """
    if not isinstance(spec.input, ImageInput | WaveformInput):
        msg = f"{spec.name} does not take files: leave them out"
        raise SpecError(msg)
    if isinstance(spec.input, ImageInput) and isinstance(spec.input.study, WholeVolume):
        msg = f"{spec.name} reads whole volumes, a file holds a slice: give the volumes as arrays"
        raise SpecError(msg)
    file = open_dicom(source)
    check_scope(file.scope, spec.input)
    if isinstance(spec.input, ImageInput):
        return image_to_wire(file.image(), spec.input)
    return waveform_to_wire(file.waveform(), spec.input)


def _checked(spec: Spec, x: NDArray[np.generic], y: NDArray[np.generic]) -> Dataset:
    classes = max(len(spec.labels), 2)
    if y.dtype.kind not in "iu" or len(x) != len(y) or not len(y) or y.min() < 0 or y.max() >= classes:
        msg = f"labels must be integers from 0 to {classes - 1}, one for each input"
        raise SpecError(msg)
    return Dataset(x=x, y=y.astype(np.int64))
