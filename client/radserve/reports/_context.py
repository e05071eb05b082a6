"""The study that a report belongs to: whose it is, what it was made of, and how its text is written."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from radserve.dicom._read import load
from radserve.dicom._series import _in_folder, _is_folder
from radserve.errors import InputError, MissingAttributeError
from radserve.reports._character_set import UTF_8, character_set, encode_as, to_unicode
from radserve.reports._modules import MAY_BE_EMPTY, PATIENT_AND_STUDY
from radserve.results import GeneratedText

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from radserve.dicom import DicomSource
    from radserve.results import Result

    Source: TypeAlias = "DicomSource | Sequence[DicomSource]"

MANUFACTURER = "radserve"
NOT_REVIEWED = "AI result, not reviewed"
LOCAL_SCHEME = "99RADSERVE"
_MOST_CHARACTERS = 64
_OFFSET_DIGITS = 5
_SEPARATORS = {"DA": ".", "TM": ":"}


class Reference(NamedTuple):
    """A source, as a report refers to it (SOP Instance Reference macro, PS3.3 table 10-11).

    Attributes:
        sop_class_uid: What it is.
        sop_instance_uid: Which one it is.
        frame_numbers: Of a multi-frame file, those that were answered, counted from 1.
        is_waveform: Whether it is a recording that the result was made of.
    """

    sop_class_uid: UID
    sop_instance_uid: UID
    frame_numbers: tuple[int, ...] = ()
    is_waveform: bool = False


@dataclass(frozen=True, kw_only=True, repr=False)
class Context:
    """Everything that a report takes from its sources.

    Attributes:
        sources: Their data sets, in the order of the result's provenance; never changed.
        references: How a report refers to each of them.
        patient: Patient and study modules, as Unicode.
        character_set: The sources' Specific Character Set.
    """

    sources: tuple[Dataset, ...]
    references: tuple[Reference, ...]
    patient: Dataset
    character_set: tuple[str, ...]

    @classmethod
    def of(cls, result: Result, source: Source, *, every: bool = True) -> Context:
        """Read the sources, and make sure that the result was made of them.

        A text has no SOP Instance UID: ``to_dicom_sr`` has the caller name its study.

        Args:
            result: What is reported.
            source: What it was made of.
            every: Whether all that it was made of must be given.

        Raises:
            InputError: The result was made of something else, or of more than is given;
                or the sources are of two studies or patients.
            MissingAttributeError: A source does not say to which study it belongs.
            DecodeError: A source cannot be read, or not in its character set.
        """
        datasets = [_loaded(each, with_pixels=not every) for each in _files(source)]
        if not datasets:
            msg = "no source is given: give the DICOM files that the result was made of"
            raise InputError(msg)
        for dataset in datasets:
            for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
                if not dataset.get(keyword):
                    raise MissingAttributeError(keyword, "without it no report can refer to the file")
        if len({_study(dataset) for dataset in datasets}) > 1:
            msg = "the sources are of more than one study or patient: a report belongs to one"
            raise InputError(msg)
        if not isinstance(result, GeneratedText):
            datasets = _in_order(datasets, result, every=every)
        declared = character_set(datasets[0])
        return cls(
            sources=tuple(datasets),
            references=tuple(_reference(dataset, result) for dataset in datasets),
            patient=_patient(datasets[0], declared),
            character_set=declared,
        )

    def stand_in(self, **attributes: object) -> Dataset:
        """What highdicom asks of a source, without a word about the patient: it quotes names in warnings."""
        made = Dataset()
        for keyword in MAY_BE_EMPTY:
            setattr(made, keyword, "")
        made.StudyInstanceUID = self.patient.StudyInstanceUID
        made.SpecificCharacterSet = UTF_8
        for keyword, value in attributes.items():
            setattr(made, keyword, value)
        return made

    def finish(self, report: Dataset, result: Result) -> Dataset:
        """Give a report its patient, its study, who made it and when, and its character set."""
        for keyword in PATIENT_AND_STUDY:
            report.pop(keyword, None)
        report.update(deepcopy(self.patient))
        report.Manufacturer, report.ManufacturerModelName = MANUFACTURER, result.model[:_MOST_CHARACTERS]
        report.add_new("SoftwareVersions", "LO", [str(result.version), result.provenance.sdk_version])
        report.SeriesDescription = f"{NOT_REVIEWED}: {result.model} {result.version}"[:_MOST_CHARACTERS]
        now = datetime.now(self._timezone())
        for kind in ("InstanceCreation", "Content", "Series"):
            setattr(report, f"{kind}Date", now.strftime("%Y%m%d"))
            setattr(report, f"{kind}Time", now.strftime("%H%M%S.%f"))
        report.ContributingEquipmentSequence = [_equipment(result)]
        schemes = sorted({scheme for scheme in _schemes(report) if scheme.startswith("99")})
        if schemes:
            report.CodingSchemeIdentificationSequence = [_scheme(scheme) for scheme in schemes]
        to_unicode(report, (UTF_8,))
        encode_as(report, self.character_set)
        return report

    def _timezone(self) -> timezone | None:
        """Of the source's dates and times; None for this machine's own."""
        told = str(self.patient.get("TimezoneOffsetFromUTC") or "").strip()
        if len(told) != _OFFSET_DIGITS or not told[1:].isdecimal():
            return None
        offset = timedelta(hours=int(told[1:3]), minutes=int(told[3:]))
        return timezone(-offset if told[0] == "-" else offset)


def new_uid() -> UID:
    """A UID of random numbers (PS3.5 B.2)."""
    return generate_uid(prefix=None)


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3 table 8.8-1)."""
    item = Dataset()
    setattr(item, "CodeValue" if len(value) <= 16 else "LongCodeValue", value)  # noqa: PLR2004 - VR SH
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _files(source: Source) -> Sequence[DicomSource]:
    if isinstance(source, str | os.PathLike) and _is_folder(source):
        return _in_folder(Path(source))
    return [source] if isinstance(source, str | bytes | os.PathLike | Dataset) else list(source)


def _loaded(source: DicomSource, *, with_pixels: bool) -> Dataset:
    dataset = load(source)
    if dataset is not source and not with_pixels:  # of a stack they would take gigabytes
        dataset.pop("PixelData", None)
    return dataset


def _in_order(datasets: Sequence[Dataset], result: Result, *, every: bool) -> list[Dataset]:
    """As the result's provenance names them.

    Raises:
        InputError: They are not what the result was made of.
    """
    expected = dict.fromkeys(result.provenance.sop_instance_uids)
    if not expected:
        msg = "the result was not made of a DICOM file: no study is known that a report of it belongs to"
        raise InputError(msg)
    by_uid = {str(dataset.SOPInstanceUID): dataset for dataset in datasets}
    if len(by_uid) < len(datasets):
        msg = "a source is there twice (SOPInstanceUID): give each one once"
        raise InputError(msg)
    if not by_uid.keys() <= expected.keys():
        msg = "the result was not made of this source: a report would go to another study, or another patient"
        raise InputError(msg)
    if every and len(by_uid) < len(expected):
        msg = f"the result was made of {len(expected)} DICOM files, {len(by_uid)} are given: give all of them"
        raise InputError(msg)
    return [by_uid[uid] for uid in expected if uid in by_uid]


def _study(dataset: Dataset) -> tuple[str, str]:
    return str(dataset.StudyInstanceUID), str(dataset.get("PatientID") or "")


def _reference(dataset: Dataset, result: Result) -> Reference:
    frames = result.provenance.frame_numbers if len(set(result.provenance.sop_instance_uids)) == 1 else ()
    is_waveform = "WaveformSequence" in dataset and not isinstance(result, GeneratedText)
    return Reference(dataset.SOPClassUID, dataset.SOPInstanceUID, frames, is_waveform)


def _patient(dataset: Dataset, declared: Sequence[str]) -> Dataset:
    patient = Dataset()
    for keyword in PATIENT_AND_STUDY:
        if keyword in dataset:
            patient[keyword] = deepcopy(dataset[keyword])
    to_unicode(patient, declared)
    for element in patient:  # ACR-NEMA's separators may be read, not written (PS3.5 6.2)
        if element.VR in _SEPARATORS and isinstance(element.value, str):
            element.value = element.value.replace(_SEPARATORS[element.VR], "")
    if patient.get("PatientIdentityRemoved") == "YES" and not any(
        patient.get(keyword) for keyword in ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
    ):
        patient.DeidentificationMethod = "Not stated by the source"
    for keyword in MAY_BE_EMPTY:
        if keyword not in patient:
            setattr(patient, keyword, "")
    return patient


def _equipment(result: Result) -> Dataset:
    """An item of the Contributing Equipment Sequence (PS3.3 C.12.1)."""
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = result.model[:_MOST_CHARACTERS]
    item.SoftwareVersions = [str(result.version), result.provenance.sdk_version]
    item.PurposeOfReferenceCodeSequence = [coded("109102", "DCM", "Processing Equipment")]
    return item


def _schemes(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.keyword == "CodingSchemeDesignator":
            yield str(element.value)
        elif element.VR == "SQ":
            for item in element.value or ():
                yield from _schemes(item)


def _scheme(designator: str) -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = designator
    if designator == LOCAL_SCHEME:
        item.CodingSchemeName = "radserve's own codes"
    return item
