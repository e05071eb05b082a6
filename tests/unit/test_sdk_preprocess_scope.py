"""Which files a contract accepts, by their attributes."""

from __future__ import annotations

from typing import Any

import pytest

from radserve.contracts import FixedWindow, ImageInput, Policy
from radserve.errors import MissingAttributeError, OutOfScopeError
from radserve.preprocess import check_scope
from radserve.sources import Scope


def described(**changed: Any) -> ImageInput:
    standard: dict[str, Any] = {
        "modalities": ("DX", "CR"),
        "rows": 4,
        "columns": 4,
        "window": FixedWindow(center=128, width=256),
    }
    return ImageInput(**{**standard, **changed})


DX = Scope(modality="DX", sop_class_uid="1.2", body_part_examined="CHEST", view_position="PA", patient_age_years=40)


@pytest.mark.parametrize(
    "contract",
    [
        {},
        {"sop_classes": ("1.2",)},
        {"body_parts": ("CHEST",), "view_positions": ("PA", "AP")},
        {"age_years": (40, 40)},
    ],
)
def test_a_file_inside_the_scope_is_accepted(contract: dict[str, Any]) -> None:
    check_scope(DX, described(**contract))


@pytest.mark.parametrize(
    ("contract", "keyword"),
    [
        ({"modalities": ("CT",)}, "Modality"),
        ({"sop_classes": ("1.3",)}, "SOPClassUID"),
        ({"body_parts": ("KNEE",)}, "BodyPartExamined"),
        ({"view_positions": ("LL",)}, "ViewPosition"),
        ({"age_years": (0, 39)}, "PatientAge"),
    ],
)
def test_a_file_outside_the_scope_is_refused_by_keyword(contract: dict[str, Any], keyword: str) -> None:
    with pytest.raises(OutOfScopeError, match=keyword) as caught:
        check_scope(DX, described(**contract))
    assert "CHEST" not in str(caught.value)


@pytest.mark.parametrize(
    ("contract", "keyword"),
    [
        ({}, "Modality"),
        ({"sop_classes": ("1.2",)}, "SOPClassUID"),
        ({"view_positions": ("PA",)}, "ViewPosition"),
        ({"age_years": (0, 99)}, "PatientAge"),
    ],
)
def test_an_absent_attribute_is_refused_unless_the_contract_accepts_it(contract: dict[str, Any], keyword: str) -> None:
    scope = Scope(modality=None if keyword == "Modality" else "DX")
    with pytest.raises(MissingAttributeError, match=keyword):
        check_scope(scope, described(**contract))
    if keyword != "Modality":
        check_scope(scope, described(**contract, absent_attributes=Policy.ACCEPT))


@pytest.mark.parametrize(
    ("scope", "policy"),
    [
        (Scope(modality="DX", presentation_intent="FOR PROCESSING"), "for_processing"),
        (Scope(modality="DX", burned_in_annotation="YES"), "burned_in_annotation"),
    ],
)
def test_for_processing_and_burned_in_text_are_refused_unless_accepted(scope: Scope, policy: str) -> None:
    with pytest.raises(OutOfScopeError):
        check_scope(scope, described())
    check_scope(scope, described(**{policy: Policy.ACCEPT}))


SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("scope", "refused"),
    [
        (Scope(modality="US"), True),
        (Scope(modality="US", burned_in_annotation="NO"), False),
        (Scope(modality="US", burned_in_annotation="MAYBE"), True),
        (Scope(modality="OT", sop_class_uid=SECONDARY_CAPTURE), True),
        (Scope(modality="OT", sop_class_uid=f"{SECONDARY_CAPTURE}.4"), True),
        (Scope(modality="OT", sop_class_uid="1.2.840.10008.5.1.4.1.1.77.1.4"), False),
        (Scope(modality="OT", sop_class_uid=SECONDARY_CAPTURE, burned_in_annotation="NO"), False),
        (Scope(modality="DX"), False),
    ],
)
def test_what_may_hold_burned_in_text_and_does_not_deny_it_counts_as_holding_it(scope: Scope, refused: bool) -> None:  # noqa: FBT001 - pytest's parameter
    anything = described(modalities=("US", "OT", "DX"))
    lenient = described(modalities=("US", "OT", "DX"), burned_in_annotation=Policy.ACCEPT)
    for contract, policy in ((anything, None), (anything, Policy.ACCEPT), (lenient, Policy.REFUSE)):
        if refused:
            with pytest.raises(OutOfScopeError, match="BurnedInAnnotation"):
                check_scope(scope, contract, burned_in=policy)
        else:
            check_scope(scope, contract, burned_in=policy)
    for policy in (None, Policy.ACCEPT):
        check_scope(scope, lenient, burned_in=policy)


def test_a_localizer_is_refused() -> None:
    with pytest.raises(OutOfScopeError, match="LOCALIZER"):
        check_scope(Scope(modality="DX", image_type="ORIGINAL\\PRIMARY\\LOCALIZER"), described())
    check_scope(Scope(modality="DX", image_type="ORIGINAL\\PRIMARY\\AXIAL"), described())


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        (Scope(modality="CT"), "Modality is CT, outside what the model accepts: DX, CR"),
        (Scope(modality="RTPLAN"), "Modality is RTPLAN, outside"),
        (Scope(modality="DOE^JOHN"), "Modality is outside what the model accepts: DX, CR"),
        (Scope(modality="DX", view_position="LL"), "ViewPosition is LL, outside what the model accepts: PA"),
        (Scope(modality="DX", view_position="DOE"), "ViewPosition is outside what the model accepts: PA"),
    ],
)
def test_a_refusal_tells_defined_terms_and_nothing_that_somebody_typed(scope: Scope, told: str) -> None:
    with pytest.raises(OutOfScopeError, match=told) as caught:
        check_scope(scope, described(view_positions=("PA",)))
    assert "DOE" not in str(caught.value)
