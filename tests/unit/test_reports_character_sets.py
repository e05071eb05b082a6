"""Names in reports: as in the source, whatever its character set, as pydicom and dcmtk read them."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from pydicom.valuerep import PersonName
from support.answers import classification, content, drawn, finding, generated, generated_text, segmentation
from support.validators import dciodvfy_errors, dsrdump

from radserve.contracts import Code
from radserve.errors import DecodeError

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

UTF_8 = "ISO_IR 192"
IR_58 = ["", "ISO 2022 IR 58"]
IR_87 = ["", "ISO 2022 IR 87"]
IR_149 = ["", "ISO 2022 IR 149"]
# Specific Character Set of the source, a name, and the Specific Character Set of its reports.
CASES: dict[str, tuple[Any, str, Any]] = {
    "ASCII": (None, "Wang^XiaoDong", None),
    "Latin-1": ("ISO_IR 100", "Buc^Jérôme", "ISO_IR 100"),
    "Cyrillic": ("ISO_IR 144", "Иванов^Иван", "ISO_IR 144"),
    "GB18030": ("GB18030", "Wang^XiaoDong=王^小东", "GB18030"),
    "GBK, as GB18030": ("GBK", "Wang^XiaoDong=王^小东", "GB18030"),
    "GB18030 with the byte 5CH": ("GB18030", "Zhang=張^乗誠", UTF_8),
    "UTF-8": (UTF_8, "Wang^XiaoDong=王^小东", UTF_8),
    "Chinese by code extension, which pydicom reads and writes wrongly": (IR_58, "Zhang^XiaoDong=张^小东", UTF_8),
    "Japanese by code extension": (IR_87, "Yamada^Tarou=山田^太郎=やまだ^たろう", IR_87),
    "Japanese with the byte 5CH": (IR_87, "Yamada=山田^ボブ", UTF_8),
    "Korean by code extension": (IR_149, "Hong^Gildong=洪^吉洞=홍^길동", IR_149),
}


def source(declared: Any, name: str) -> Dataset:
    """As read from a file: names of a data set made in memory are Unicode already."""
    dataset = generated("ct_lesion", SpecificCharacterSet=declared, PatientName=name)
    if declared == IR_58:  # PS3.5 K.2: the escape sequence comes again behind each delimiter
        family, given = (b"\x1b$)A" + part.encode("gb2312") for part in ("张", "小东"))
        raw = b"Zhang^XiaoDong=" + family + b"^" + given
        dataset.PatientName = PersonName(raw, encodings=["iso8859", "iso_ir_58"])
    return pydicom.dcmread(BytesIO(content(dataset)))


def declared_in(dataset: Dataset) -> Any:
    value = dataset.get("SpecificCharacterSet")
    return value if value is None or isinstance(value, str) else list(value)


@pytest.mark.parametrize("case", CASES)
def test_each_report_keeps_the_name_and_the_character_set_if_it_can(case: str, tmp_path: Path) -> None:
    declared, name, expected = CASES[case]
    file = source(declared, name)
    answer = segmentation(drawn(file.Rows, file.Columns), file)
    reports = [answer.to_dicom_sr(file), answer.to_dicom_seg(file), answer.to_secondary_capture(file)]
    for report in reports:
        path = tmp_path / f"{report.Modality}.dcm"
        report.save_as(path, enforce_file_format=True)
        again = pydicom.dcmread(path)
        assert str(again.PatientName) == name
        assert declared_in(again) == expected
        assert dciodvfy_errors(path) == []
    if expected != IR_87:  # the C library's conversion, which dcmtk uses, has no such set
        assert f"Patient             : {name} (" in dsrdump(tmp_path / "SR.dcm")


def test_what_the_sources_character_set_cannot_hold_is_told_in_utf_8(tmp_path: Path) -> None:
    file = source("ISO_IR 100", "Buc^Jérôme")
    path = tmp_path / "sr.dcm"
    report = generated_text("左侧气胸。").to_dicom_sr(file, study_instance_uid=file.StudyInstanceUID)
    report.save_as(path, enforce_file_format=True)
    said = dsrdump(path)
    assert "左侧气胸。" in said
    assert "Buc^Jérôme" in said
    assert dciodvfy_errors(path) == []
    assert pydicom.dcmread(path).SpecificCharacterSet == UTF_8


@pytest.mark.parametrize("declared", [None, "ISO_IR 100", "GB18030"])
def test_chinese_labels_are_kept_in_every_report(declared: str | None, tmp_path: Path) -> None:
    file = source(declared, "Wang^XiaoDong")
    code = Code(value="LESION", scheme="99TEST", meaning="病变")
    made = finding("病变", code=code)
    path = tmp_path / "sr.dcm"
    classification(file, findings=(made,)).to_dicom_sr(file).save_as(path, enforce_file_format=True)
    assert dsrdump(path).count("病变") == 3  # tracking identifier, finding, evaluation


@pytest.mark.parametrize(
    ("declared", "raw"), [(None, "王".encode("gb18030")), (UTF_8, b"\xcd\xf5"), ("ISO_IR 6", b"Buc^J\xe9r\xf4me")]
)
def test_a_name_that_is_not_of_the_declared_character_set_is_refused(declared: str | None, raw: bytes) -> None:
    whole = content(generated("ct_lesion", SpecificCharacterSet=declared, PatientName="X" * len(raw)))
    file = pydicom.dcmread(BytesIO(whole.replace(b"X" * len(raw), raw)))
    with pytest.raises(DecodeError, match="PatientName is not of the file's SpecificCharacterSet"):
        classification(file).to_dicom_sr(file)


def test_the_source_is_not_changed() -> None:
    file = source("GB18030", "Wang^XiaoDong=王^小东")
    before = content(file)
    classification(file).to_dicom_sr(file)
    classification(file).to_secondary_capture(file)
    assert content(file) == before
