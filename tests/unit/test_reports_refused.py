"""What is never reported: results of another study, halves of one, and the patient in a log."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.uid import generate_uid
from support.answers import classification, content, drawn, generated, generated_text, provenance, segmentation

from radserve.errors import DecodeError, InputError, MissingAttributeError, MissingExtraError, installing

if TYPE_CHECKING:
    from collections.abc import Iterator


def _attempts(answer: Any, source: Any) -> Iterator[Any]:
    yield lambda: answer.to_dicom_sr(source)
    yield lambda: answer.to_secondary_capture(source)
    if hasattr(answer, "to_dicom_seg"):
        yield lambda: answer.to_dicom_seg(source)


def test_no_report_goes_to_a_study_that_the_result_was_not_made_of() -> None:
    mine, other = generated("ct_lesion"), generated("ct_lesion", SOPInstanceUID=generate_uid(prefix=None))
    label_map = drawn(mine.Rows, mine.Columns)
    for answer in (classification(mine), segmentation(label_map, mine)):
        for source in (other, content(other), [mine, other]):
            for attempt in _attempts(answer, source):
                with pytest.raises(InputError, match="not made of this source"):
                    attempt()


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "PatientID"])
def test_sources_of_two_studies_or_patients_are_refused(keyword: str) -> None:
    one, two = generated("ct_lesion"), generated("ct_lesion", SOPInstanceUID="2.25.1", **{keyword: "2.25.2"})
    with pytest.raises(InputError, match="more than one study or patient"):
        classification(one, two).to_dicom_sr([one, two])
    with pytest.raises(InputError, match="more than one study or patient"):
        generated_text().to_dicom_sr([one, two], study_instance_uid=one.StudyInstanceUID)


def test_whose_a_text_is_the_caller_has_to_say() -> None:
    file = generated("chest_xray")
    with pytest.raises(InputError, match="name the study that it is about"):
        generated_text().to_dicom_sr(file)
    other = str(generate_uid(prefix=None))
    for answer in (generated_text(), classification(file)):
        assert answer.to_dicom_sr(file, study_instance_uid=str(file.StudyInstanceUID))
        with pytest.raises(InputError, match="not of the study") as caught:
            answer.to_dicom_sr(file, study_instance_uid=other)
        assert other not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"PatientID": "2.25.2"}, "more than one study or patient"),
        ({"StudyInstanceUID": "2.25.2"}, "more than one study or patient"),
        ({"PatientName": "Somebody^Else"}, "there twice"),
    ],
)
def test_two_sources_that_claim_to_be_one_are_refused(changed: dict[str, str], refusal: str) -> None:
    one, two = generated("ct_lesion"), generated("ct_lesion", **changed)
    answer = segmentation(drawn(one.Rows, one.Columns), one)
    for sources in ([one, two], [two, one]):
        for attempt in _attempts(answer, sources):
            with pytest.raises(InputError, match=refusal):
                attempt()


def test_all_sources_of_a_result_are_wanted() -> None:
    files = [generated("ct_lesion", SOPInstanceUID=f"2.25.{number}") for number in (1, 2)]
    with pytest.raises(InputError, match="made of 2 DICOM files, 1 are given"):
        classification(*files).to_dicom_sr(files[0])
    with pytest.raises(InputError, match="no source is given"):
        classification(*files).to_dicom_sr([])


def test_a_result_of_an_array_has_no_study() -> None:
    file = generated("chest_xray")
    with pytest.raises(InputError, match="not made of a DICOM file"):
        classification(provenance=provenance()).to_dicom_sr(file)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_a_source_that_no_report_can_refer_to_is_refused(keyword: str) -> None:
    file = generated("chest_xray")
    answer = classification(file)
    del file[keyword]
    with pytest.raises(MissingAttributeError, match=keyword):
        answer.to_dicom_sr(file)


def test_a_segmentation_of_something_else_is_refused() -> None:
    file = generated("ct_lesion")
    answer = segmentation(drawn(file.Rows, file.Columns), file)
    seg = answer.to_dicom_seg(file)
    with pytest.raises(InputError, match="leave it out"):
        classification(file).to_dicom_sr(file, segmentation=seg)
    with pytest.raises(InputError, match="leave it out"):
        answer.to_dicom_sr(file, segmentation=file)
    for keyword in ("StudyInstanceUID", "PatientID"):
        other = deepcopy(seg)
        other[keyword].value = "2.25.1"
        with pytest.raises(InputError, match="not of this result and source"):
            answer.to_dicom_sr(file, segmentation=other)
    unlike = deepcopy(seg)
    unlike.SegmentSequence[0].SegmentLabel = "spleen"
    with pytest.raises(InputError, match="not of this result and source"):
        answer.to_dicom_sr(file, segmentation=unlike)
    smaller = answer.label_map.copy()
    smaller[8, 10] = 0
    with pytest.raises(InputError, match="not of this result and source"):
        segmentation(smaller, file).to_dicom_sr(file, segmentation=seg)
    second = generated("ct_lesion", SOPInstanceUID="2.25.1")
    with pytest.raises(InputError, match="not of this result and source"):
        segmentation(answer.label_map, second).to_dicom_sr(second, segmentation=seg)


def test_what_is_no_dicom_file_is_refused() -> None:
    with pytest.raises(DecodeError, match="not a DICOM file"):
        classification(generated("chest_xray")).to_dicom_sr(b"nothing")


@pytest.mark.parametrize("library", ["highdicom", "fhir.resources"])
def test_without_the_extra_its_name_is_told(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = generated("ct_lesion")
    answer = segmentation(drawn(file.Rows, file.Columns), file)
    monkeypatch.setitem(sys.modules, library, None)
    attempts = (
        [answer.to_fhir]
        if library.startswith("fhir")
        else [lambda: answer.to_dicom_sr(file), lambda: answer.to_dicom_seg(file)]
    )
    for attempt in attempts:
        with pytest.raises(MissingExtraError, match=re.escape(installing("reports"))) as caught:
            attempt()
        assert caught.value.extra == "reports"


def test_neither_warnings_nor_records_quote_the_source(caplog: pytest.LogCaptureFixture) -> None:
    canary = "CANARY"
    file = generated(
        "ct_lesion", PatientName=canary, PatientID=canary, StudyDescription=canary, SOPInstanceUID="2.25.987654321"
    )
    answer = segmentation(drawn(file.Rows, file.Columns), file)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seg = answer.to_dicom_seg(file)
        answer.to_dicom_sr(file, segmentation=seg)
        answer.to_secondary_capture(file)
    told = caplog.text + "".join(str(each.message) for each in caught)
    assert canary not in told
    assert "987654321" not in told
