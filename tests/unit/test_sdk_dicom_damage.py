"""Damaged DICOM files, and what is told of any file: never what it holds."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
)
from support.datasets import CANARY, TEST_FILES, attempt, make, to_bytes

from radserve.dicom import open_dicom, read_image, read_waveform
from radserve.errors import (
    DecodeError,
    DicomError,
    InputError,
    RadserveError,
)
from radserve.sources import Image

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def test_a_cut_in_an_elements_header_or_in_encapsulated_pixels_is_noticed_on_opening() -> None:
    data = (TEST_FILES / "CT_small.dcm").read_bytes()
    header = data.rindex(b"\xe0\x7f\x10\x00OW")
    encapsulated = (TEST_FILES / "MR_small_RLE.dcm").read_bytes()
    for cut in (data[: header + 5], encapsulated[:-500]):
        with pytest.raises(DecodeError, match="truncated"):
            open_dicom(cut)


def test_a_deflate_bomb_is_refused_within_bounds() -> None:
    dataset = make()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = to_bytes(dataset)
    meta_end = 132 + 12 + pydicom.dcmread(io.BytesIO(head)).file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(2**20)
    bomb = b"".join([packer.compress(block) for _ in range(300)]) + packer.flush()
    with pytest.raises(DecodeError, match="inflates"):
        read_image(head[:meta_end] + bomb)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_RLE.dcm", "image_dfl.dcm", "test-SR.dcm", "rtplan.dcm"])
def test_a_file_cut_anywhere_is_refused(name: str) -> None:
    data = (TEST_FILES / name).read_bytes()
    for size in sorted({*range(0, len(data), max(1, len(data) // 40)), len(data) - 1, len(data) - 9}):
        whole, cut = attempt(read_image, data), attempt(read_image, data[:size])
        # The last byte of a deflated file may be padding (PS3.5 A.5): nothing is lost with it.
        if not isinstance(cut, DicomError):
            assert isinstance(cut, Image)
            assert isinstance(whole, Image)
            np.testing.assert_array_equal(cut.values, whole.values)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_values_or_a_typed_error(data: st.DataObject) -> None:
    names = ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_implicit.dcm", "SC_rgb_small_odd.dcm", "waveform_ecg.dcm"]
    damaged = bytearray((TEST_FILES / data.draw(st.sampled_from(names))).read_bytes()[:60_000])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(132, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for read in (read_image, read_waveform):
        assert attempt(read, bytes(damaged)) is not None


@pytest.mark.parametrize("source", [None, 3, ["a.dcm"], Path("/nowhere/" + CANARY), "/tmp", "a\0b", "/dev/zero"])  # noqa: S108 - any folder
def test_a_source_that_cannot_be_read_is_an_input_error_without_its_path(source: Any) -> None:
    with pytest.raises(InputError) as caught:
        open_dicom(source)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def _identifying(dataset: Dataset) -> Dataset:
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "InstitutionName", "StudyDescription"):
        setattr(dataset, keyword, CANARY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag, vr in (
            (0x00100030, "DA"),
            (0x00080020, "DA"),
            (0x00101010, "AS"),
            (0x00080050, "UI"),
            (0x00101030, "DS"),
        ):
            dataset.add_new(tag, "LO", CANARY)
            dataset[tag].VR = vr
    dataset.private_block(0x0011, CANARY, create=True).add_new(1, "LO", CANARY)
    return dataset


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"Rows": 5},
        {"Modality": CANARY},
        {"PhotometricInterpretation": CANARY},
        {"BitsAllocated": 13},
        {"PixelData": b"\0\0"},
    ],
)
def test_no_error_warning_or_log_record_quotes_the_file(
    damage: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    told = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = _identifying(make(**damage))
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, dataset)
        caught.clear()
        caplog.clear()
        for source in (buffer.getvalue(), buffer.getvalue()[:-3]):
            for read in (read_image, read_waveform):
                outcome = attempt(read, source)
                if isinstance(outcome, RadserveError):
                    told += "".join(traceback.format_exception(outcome))
    assert CANARY not in told
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capfd.readouterr())
    assert not [warning for warning in caught if CANARY in str(warning.message)]


def test_pydicom_logs_nothing_of_a_file_that_radserve_reads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = to_bytes(make(SpecificCharacterSet=["ISO_IR 192", "ISO 2022 IR 87"], PatientName="A^B"))
        caplog.clear()
        read_image(data)
        assert not caplog.records
        pydicom.dcmread(io.BytesIO(data))
        assert "ISO 2022 IR 87" in caplog.text


def test_pydicom_still_warns_its_own_users() -> None:
    read_image(TEST_FILES / "CT_small.dcm")
    with pytest.warns(UserWarning, match="Invalid value"):
        pydicom.dataelem.DataElement(0x00100020, "DA", "not a date")
