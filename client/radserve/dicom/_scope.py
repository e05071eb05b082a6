"""The attributes that decide whether a model may see a file, read without touching its pixels."""

from __future__ import annotations

import math
import re
from datetime import date
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue

from radserve.dicom._attributes import get
from radserve.sources import Scope

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_AGE = re.compile(r"([0-9]{1,3})([DWMY])\Z")
_PER_YEAR = {"D": 365.25, "W": 52.1775, "M": 12.0, "Y": 1.0}
_SMALL_CHILD_YEARS = 2
# SNOMED CT codes, and the SNOMED RT ones (PS3.16 annex L) that older files hold.
_VIEWS = {
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("272479007", "R-10214", "R-40888"), "PA"),
    **dict.fromkeys(("399173006", "R-10236"), "LL"),
    **dict.fromkeys(("399198007", "R-10232"), "RL"),
    **dict.fromkeys(("399162004", "R-10242"), "CC"),
    **dict.fromkeys(("399368009", "R-10226"), "MLO"),
    **dict.fromkeys(("399260004", "R-10224"), "ML"),
    **dict.fromkeys(("399352003", "R-10228"), "LM"),
}
_OTHER_VIEW = "OTHER"
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})\Z")


def read_scope(dataset: Dataset) -> Scope:
    """Collect what contracts ask about; nothing that names a patient."""
    return Scope(
        modality=_code_string(dataset, "Modality"),
        sop_class_uid=_text(dataset, "SOPClassUID"),
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        body_part_examined=_code_string(dataset, "BodyPartExamined"),
        view_position=_code_string(dataset, "ViewPosition") or _coded_view(dataset),
        patient_age_years=_age_years(dataset),
        presentation_intent=_code_string(dataset, "PresentationIntentType"),
        burned_in_annotation=_code_string(dataset, "BurnedInAnnotation"),
        image_type=_code_string(dataset, "ImageType"),
    )


def _text(dataset: Dataset, keyword: str) -> str | None:
    """The value; several are joined by a backslash, as the file holds them, without empty ones."""
    value = get(dataset, keyword)
    values = [value] if isinstance(value, str) else value if isinstance(value, MultiValue) else []
    return "\\".join(filter(None, (str(each).strip(" \0") for each in values))) or None


def _code_string(dataset: Dataset, keyword: str) -> str | None:
    text = _text(dataset, keyword)
    return text.upper() if text else None


def _coded_view(dataset: Dataset) -> str | None:
    """The View Position that View Code Sequence (PS3.16 CID 4010, CID 4014) means; OTHER where none has its meaning."""
    items = get(dataset, "ViewCodeSequence")
    code = _text(items[0], "CodeValue") if items else None
    return _VIEWS.get(code, _OTHER_VIEW) if code else None


def _age_years(dataset: Dataset) -> float | None:
    """Patient's Age (0010,1010), else from birth date to study date (PS3.5 6.2 AS, DA).

    NaN where Patient's Age is told in no form of the standard: whoever asks for
    the age refuses it, and nobody else need care.
    """
    told = _code_string(dataset, "PatientAge")
    match = _AGE.match(told or "")
    if match:
        return int(match[1]) / _PER_YEAR[match[2]]
    born, seen = _date(dataset, "PatientBirthDate"), _date(dataset, "StudyDate")
    if born is None or seen is None or seen < born:
        return math.nan if told else None
    years = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    # As Patient's Age counts: whole years, but finer for small children.
    return float(years) if years >= _SMALL_CHILD_YEARS else (seen - born).days / _PER_YEAR["D"]


def _date(dataset: Dataset, keyword: str) -> date | None:
    match = _DATE.match(str(get(dataset, keyword) or "").strip())
    if not match:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None
