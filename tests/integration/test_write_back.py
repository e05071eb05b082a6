"""From file to report through the whole path: what the committed models answer, written back to the study."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np
import pydicom
import pytest
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from support.validators import dciodvfy_errors, dsrdump

from radserve import Classification, Client, GeneratedText, Segmentation
from radserve_export.synthetic import Sample, Split, generate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

    from radserve_server import EmbeddedServer

NAME = "Wang^XiaoDong=王^小东"


@pytest.fixture(scope="module")
def client(reference_server: EmbeddedServer) -> Iterator[Client]:
    with Client(reference_server.grpc_url) as connected:
        yield connected


def sample(generator: str, wanted: str) -> Sample:
    return next(each for each in generate(generator, 60, seed=99, split=Split.TEST) if wanted in (each.label, ""))


def in_chinese(source: bytes | str) -> bytes:
    """The file of a patient with a Chinese name, in GB18030 as many hospitals write it."""
    assert isinstance(source, bytes)
    dataset = pydicom.dcmread(BytesIO(source))
    dataset.SpecificCharacterSet, dataset.PatientName = "GB18030", NAME
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def written(report: Dataset, path: Path) -> Dataset:
    report.save_as(path, enforce_file_format=True)
    assert dciodvfy_errors(path) == []
    read = pydicom.dcmread(path)
    assert (str(read.PatientName), read.SpecificCharacterSet) == (NAME, "GB18030")
    return read


def test_a_lesion_is_segmented_and_its_report_refers_to_the_segments(client: Client, tmp_path: Path) -> None:
    phantom = next(
        each
        for each in generate("ct_lesion", 20, seed=99, split=Split.TEST)
        if each.truth is not None and (each.truth == 2).sum() > 40
    )
    source = in_chinese(phantom.source)
    file = pydicom.dcmread(BytesIO(source))
    result = client.model("ct_lesion", Segmentation).predict(source)
    assert result.findings[1].is_positive
    seg = result.to_dicom_seg(source)
    written(seg, tmp_path / "seg.dcm")
    (found,) = hd.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_instance(
        [file.SOPInstanceUID], combine_segments=True
    )
    np.testing.assert_array_equal(found, result.label_map)
    assert phantom.truth is not None
    lesion = phantom.truth == 2
    assert 2 * (lesion & (found == 2)).sum() / (lesion.sum() + (found == 2).sum()) > 0.6
    report = written(
        result.to_dicom_sr(source, segmentation=pydicom.dcmread(tmp_path / "seg.dcm")), tmp_path / "sr.dcm"
    )
    dumped = dsrdump(tmp_path / "sr.dcm")
    assert NAME in dumped
    assert dumped.count("SG image") == 2
    assert f'"{result.findings[1].label}"' in dumped
    assert report.StudyInstanceUID == file.StudyInstanceUID
    DiagnosticReport.model_validate(result.to_fhir(subject="Patient/1"))


def test_the_evidence_is_burned_into_a_secondary_capture(client: Client, tmp_path: Path) -> None:
    source = in_chinese(sample("chest_xray", "pneumothorax").source)
    result = client.model("chest_xray_evidence", Classification).predict(source)
    assert result.evidence is not None
    assert result.evidence.maximum is not None
    written(result.to_secondary_capture(source), tmp_path / "sc.dcm")
    plain = Classification(
        model=result.model, version=result.version, provenance=result.provenance, findings=result.findings
    )
    rows, columns = result.evidence.values.shape
    shown = [each.to_secondary_capture(source).pixel_array.astype(int) for each in (result, plain)]
    factor = shown[0].shape[1] // columns
    pixels, without = (each[-rows * factor :][::factor, ::factor] for each in shown)
    change = np.abs(pixels - without).max(axis=-1)
    assert change[result.evidence.values == 0].max() == 0
    assert change[result.evidence.maximum] > 30
    written(result.to_dicom_sr(source), tmp_path / "sr.dcm")
    assert result.top.code.meaning in dsrdump(tmp_path / "sr.dcm")


@pytest.mark.parametrize("index", [0, 1])
def test_an_impression_becomes_a_report_of_the_study_it_is_of(client: Client, index: int, tmp_path: Path) -> None:
    text = list(generate("report_impression", 2, seed=99, split=Split.TEST))[index].source
    source = in_chinese(sample("chest_xray", "").source)
    result = client.model("report_impression", GeneratedText).predict(text)
    study = str(pydicom.dcmread(BytesIO(source)).StudyInstanceUID)
    written(result.to_dicom_sr(source, study_instance_uid=study), tmp_path / "sr.dcm")
    dumped = dsrdump(tmp_path / "sr.dcm")
    assert all(line in dumped for line in result.text.splitlines())
    report = result.to_fhir()
    DiagnosticReport.model_validate(report)
    assert report["conclusion"] == result.text


def test_an_ecg_report_refers_to_its_recording(client: Client, tmp_path: Path) -> None:
    source = in_chinese(sample("ecg_rhythm", "").source)
    result = client.model("ecg_rhythm", Classification).predict(source)
    written(result.to_dicom_sr(source), tmp_path / "sr.dcm")
    assert result.top.code.meaning in dsrdump(tmp_path / "sr.dcm")
