"""A folder or a list of files as one series: complete, and in the order of the patient's anatomy."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from radserve.dicom._budget import Budget
from radserve.dicom._file import DicomFile, DicomSource, open_dicom
from radserve.dicom._headers import MAX_IMAGES
from radserve.errors import InconsistentSeriesError, InputError, MissingAttributeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from radserve.dicom._headers import Header
    from radserve.sources import Geometry, Image, Scope

    SeriesSource: TypeAlias = "DicomSource | Sequence[DicomSource]"

DEFAULT_MAXIMUM_GAP = 0.1
# Between direction cosines that mean the same: they are text of at most 16 characters, often of fewer.
_ORIENTATION_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3  # relative
# Nearer than this, two images are at the same place: absolute, and as a share of the usual distance.
_SAME_PLACE_MM = 1e-3
_SAME_PLACE_SHARE = 0.01
_INDEX_FILE = "DICOMDIR"


class DicomSeries:
    """The images of one series in their order. Made by ``open_series``.

    Images that lie in the patient are ordered by their position along the slice
    normal, others by Instance Number and frame.

    Attributes:
        scopes: What a contract may ask about, of each file.
        geometry: Where the stack lies in the patient: its first image, and the
            distance between images; None where they have no place, or form no
            even, upright stack (see ``require_volume``).
    """

    def __init__(self, files: Sequence[DicomSource], *, maximum_gap: float) -> None:
        self._files = files
        self._opened: tuple[int, DicomFile] | None = None
        self._budget = Budget()
        scopes: list[Scope] = []
        found: list[tuple[int, Header]] = []
        for place in range(len(files)):
            file, headers = self._read(place)
            scopes.append(file.scope)
            found += ((place, header) for header in headers)
            if len(found) > MAX_IMAGES:
                raise InputError(_too_many())
        self.scopes = tuple(scopes)
        _check_shared([header for _, header in found if not header.frame])
        self._order = _in_order(found, maximum_gap)
        self._fault, self.geometry = _stack([header for _, header in self._order], maximum_gap)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def plane_size(self) -> tuple[int, int]:
        """Rows and columns of the first image."""
        found = []
        for keyword in ("Rows", "Columns"):
            values = self._order[0][1].size[keyword]
            if not values:
                raise MissingAttributeError(keyword, "without it the file cannot be decoded")
            found.append(int(values[0]))
        return found[0], found[1]

    def images(self) -> Iterator[Image]:
        """Decode one after the other; only one is held at a time.

        Raises:
            DicomError: As ``read_image``.
            InconsistentSeriesError: A file has changed since the series was opened.
        """
        for place, header in self._order:
            yield self._image(place, header)

    def require_volume(self) -> Geometry:
        """Where the volume lies that the images form.

        Raises:
            InconsistentSeriesError: There is only one image, they have no place in the
                patient, are tilted against their normal or lie unevenly.
        """
        if self.geometry is None or self._fault:
            raise InconsistentSeriesError(self._fault)
        return self.geometry

    def _image(self, place: int, header: Header) -> Image:
        try:
            file = self._open(place)
            if file.scope != self.scopes[place]:
                msg = "the file has changed since the series was opened: open it again"
                raise InconsistentSeriesError(msg)
            return file.image(frame=header.frame)
        except InputError as error:
            raise self._named(error, place) from None

    def _open(self, place: int) -> DicomFile:
        if self._opened is None or self._opened[0] != place:
            self._opened = None  # two at a time would be held while the next one is read
            file = open_dicom(self._files[place])
            file.budget = self._budget
            self._opened = place, file
        return self._opened[1]

    def _read(self, place: int) -> tuple[DicomFile, tuple[Header, ...]]:
        try:
            file = self._open(place)
            return file, file.headers()
        except InputError as error:
            raise self._named(error, place) from None

    def _named(self, error: InputError, place: int) -> InputError:
        """Say which file is meant, by its place: a name may be a patient's."""
        if len(self._files) > 1 and not str(error).startswith("file "):
            error.args = (f"file {place + 1} of {len(self._files)}: {error}",)
        return error


def open_series(source: SeriesSource, *, maximum_gap: float = DEFAULT_MAXIMUM_GAP) -> DicomSeries:
    """Open the files of one series, read what tells them apart, and put them in order; no pixels are decoded.

    A folder is read without what lies deeper: every regular file in it whose name
    neither begins with a dot nor is DICOMDIR must be an image of the series. Messages
    count its files in the order of their names.

    Args:
        source: A folder; or files, as paths, content or data sets; a multi-frame
            file counts as so many images.
        maximum_gap: How much larger than their median a distance between slices may
            be, as a fraction of it.

    Raises:
        InconsistentSeriesError: The images are of several series or orientations, one is
            a localizer, two are at the same place, several acquisitions lie between each
            other, or one is missing between others.
        DicomError: A file cannot be read; its place among the files is told.
        InputError: There is none, or more than 4096.
    """
    if isinstance(source, list | tuple):
        files: Sequence[DicomSource] = source
    elif isinstance(source, str | os.PathLike) and _is_folder(source):
        files = _in_folder(Path(source))
    else:
        files = (source,)  # type: ignore[assignment] # whatever else it is, open_dicom says what it wants
    if not files:
        msg = "there is no file: give those of one series, or the folder they lie in"
        raise InputError(msg)
    if len(files) > MAX_IMAGES:
        raise InputError(_too_many())
    return DicomSeries(files, maximum_gap=maximum_gap)


def _too_many() -> str:
    return f"there are more than {MAX_IMAGES} images, the most this SDK reads as one study: give one series"


def _is_folder(path: str | os.PathLike[str]) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # open_dicom says what is wrong with it
        return False


def _in_folder(folder: Path) -> list[DicomSource]:
    found: list[DicomSource] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.upper() == _INDEX_FILE:
                    continue
                if entry.is_dir():
                    msg = "the folder holds folders: give the folder of one series"
                    raise InputError(msg)
                found.append(entry.path)
                if len(found) > MAX_IMAGES:
                    raise InputError(_too_many())
    except OSError as error:
        msg = f"the folder cannot be read: {error.strerror}"
        raise InputError(msg, is_final=False) from None
    return sorted(found, key=str)


def _check_shared(files: Sequence[Header]) -> None:
    """Compare the first image of each file with that of the first one."""
    first = files[0]
    for header in files[1:]:
        if header.series is None or first.series is None:
            keyword = "SeriesInstanceUID"
            raise MissingAttributeError(keyword, "nothing says that the images belong together")
        if header.series != first.series:
            msg = "the images are of several series (SeriesInstanceUID): give one series at a time"
            raise InconsistentSeriesError(msg)
        if header.is_localizer or first.is_localizer:
            msg = "a localizer (ImageType) is among the images: leave it out"
            raise InconsistentSeriesError(msg)
        _same(first.shared, header.shared)
    if len({header.instance for header in files}) < len(files):
        msg = "an image is there twice (SOPInstanceUID), or several have none: give each one once"
        raise InconsistentSeriesError(msg)


def _same(one: Mapping[str, object], other: Mapping[str, object]) -> None:
    for keyword, value in one.items():
        if other[keyword] != value:
            msg = f"{keyword} differs between the images: give the images of one acquisition"
            raise InconsistentSeriesError(msg)


def _in_order(found: Sequence[tuple[int, Header]], maximum_gap: float) -> list[tuple[int, Header]]:
    planes = [header.plane for _, header in found]
    if not any(planes):
        return sorted(found, key=lambda item: (item[1].number, item[1].instance or "", item[1].frame or 0))
    first = planes[0]
    for (_, header), plane in zip(found, planes, strict=True):
        if plane is None or first is None:
            keyword = "ImagePositionPatient"
            reason = "it, ImageOrientationPatient or PixelSpacing is absent or malformed in some images of the series"
            raise MissingAttributeError(keyword, reason)
        _same(found[0][1].size, header.size)
        if np.abs(_cosines(plane) - _cosines(first)).max() > _ORIENTATION_TOLERANCE:
            msg = "the images have several orientations (ImageOrientationPatient): give those of one"
            raise InconsistentSeriesError(msg)
        if not np.allclose(plane.pixel_spacing_mm, first.pixel_spacing_mm, rtol=_SPACING_TOLERANCE, atol=0):
            msg = "PixelSpacing differs between the images: give the images of one acquisition"
            raise InconsistentSeriesError(msg)
    assert first is not None  # noqa: S101 - asked of each in the loop
    places = np.array([plane.position_mm for plane in planes if plane is not None]) @ _normal(first)
    order = np.argsort(places, kind="stable")
    _check_distances(np.diff(places[order]), maximum_gap)
    _check_acquisitions([found[place][1].acquisition for place in order])
    return [found[place] for place in order]


def _normal(plane: Geometry) -> NDArray[np.float64]:
    normal: NDArray[np.float64] = np.array(plane.normal) / np.linalg.norm(plane.normal)
    return normal


def _cosines(plane: Geometry) -> NDArray[np.float64]:
    return np.array([plane.row_cosines, plane.column_cosines])


def _check_distances(distances_mm: NDArray[np.float64], maximum_gap: float) -> None:
    if not distances_mm.size:
        return
    median = float(np.median(distances_mm))
    if distances_mm.min() < max(_SAME_PLACE_MM, _SAME_PLACE_SHARE * median):
        msg = (
            "several images are at the same place: give one acquisition, phase, echo or b-value at a time"
            " (AcquisitionNumber, TemporalPositionIdentifier, EchoTimes, DiffusionBValue tell them apart)"
        )
        raise InconsistentSeriesError(msg)
    widest = int(distances_mm.argmax())
    if distances_mm[widest] > (1 + maximum_gap) * median + _SAME_PLACE_MM:
        msg = (
            f"an image is missing after number {widest + 1} of {len(distances_mm) + 1} along the slice normal"
            " (ImagePositionPatient): fetch the whole series"
        )
        raise InconsistentSeriesError(msg)


def _check_acquisitions(along: Sequence[tuple[float, ...]]) -> None:
    """Refuse acquisitions that lie between each other's images; one after the other they may be parts of one scan."""
    told = [number for number in along if number]
    if sum(one != other for one, other in pairwise(told)) >= max(1, len(set(told))):
        msg = "the images of several acquisitions (AcquisitionNumber) lie between each other: give one at a time"
        raise InconsistentSeriesError(msg)


def _stack(headers: Sequence[Header], maximum_gap: float) -> tuple[str, Geometry | None]:
    """Why the images form no volume, or where it lies."""
    planes = [header.plane for header in headers if header.plane is not None]
    if len(planes) < len(headers):
        return "the images have no place in the patient (ImagePositionPatient): they form no volume", None
    if len(planes) == 1:
        return "one image is no volume: give the whole series", planes[0]
    first = planes[0]
    offsets = np.array([plane.position_mm for plane in planes]) - first.position_mm
    along = offsets @ _normal(first)
    spacing = float(along[-1]) / (len(planes) - 1)
    aside = np.linalg.norm(offsets - np.outer(along, _normal(first)), axis=1)
    if aside.max() > min(first.pixel_spacing_mm) / 2:
        return "the images are shifted against each other (gantry tilt): they form no upright volume", None
    if np.abs(along - spacing * np.arange(len(planes))).max() > max(maximum_gap * spacing, _SAME_PLACE_MM):
        return "the distances between the images are uneven (ImagePositionPatient): they form no volume", None
    return "", replace(first, slice_spacing_mm=spacing)
