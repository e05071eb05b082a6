"""Whether a contract accepts a file, told from its attributes before anything is decoded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from radserve.contracts import ImageInput, Policy
from radserve.errors import DecodeError, MissingAttributeError, OutOfScopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve.contracts import WaveformInput
    from radserve.sources import Scope


def check_scope(scope: Scope, described: ImageInput | WaveformInput, *, burned_in: Policy | None = None) -> None:
    """Refuse a file that the contract does not accept.

    Messages name keywords and what the contract accepts, never the file's value.

    Args:
        scope: The file's attributes.
        described: The contract's input block.
        burned_in: The caller's own policy for burned-in text; the stricter of both holds.

    Raises:
        OutOfScopeError: An attribute has a value outside the contract.
        MissingAttributeError: The contract asks for an attribute that the file lacks.
        DecodeError: The contract asks for the age and the file's breaks the standard.
    """
    absent = described.absent_attributes if isinstance(described, ImageInput) else Policy.REFUSE
    # A file that does not even say what it is is never accepted.
    _check("Modality", scope.modality, described.modalities, Policy.REFUSE)
    _check("SOPClassUID", scope.sop_class_uid, described.sop_classes, absent)
    if not isinstance(described, ImageInput):
        return
    _check("BodyPartExamined", scope.body_part_examined, described.body_parts, absent)
    _check("ViewPosition", scope.view_position, described.view_positions, absent)
    _check_age(scope, described, absent)
    if "FOR PROCESSING" in _values(scope.presentation_intent) and described.for_processing is Policy.REFUSE:
        msg = "PresentationIntentType is FOR PROCESSING: the model reads FOR PRESENTATION images only"
        raise OutOfScopeError(msg)
    if "YES" in _values(scope.burned_in_annotation) and Policy.REFUSE in (described.burned_in_annotation, burned_in):
        msg = "BurnedInAnnotation is YES: the model refuses images that may name a patient"
        raise OutOfScopeError(msg)


def _values(joined: str | None) -> list[str]:
    return (joined or "").split("\\")


def _check(keyword: str, value: str | None, accepted: Sequence[str], absent: Policy) -> None:
    if not accepted:
        return
    if value is None:
        if absent is Policy.REFUSE:
            raise MissingAttributeError(keyword, f"the model accepts only {', '.join(accepted)}")
    elif value.upper() not in {entry.upper() for entry in accepted}:
        msg = f"{keyword} is outside what the model accepts: {', '.join(accepted)}"
        raise OutOfScopeError(msg)


def _check_age(scope: Scope, described: ImageInput, absent: Policy) -> None:
    if described.age_years is None:
        return
    low, high = described.age_years
    accepted = f"patients from {low:g} to {high:g} years"
    if scope.patient_age_years is None:
        if absent is Policy.REFUSE:
            keyword = "PatientAge"
            raise MissingAttributeError(keyword, f"the model accepts only {accepted}")
    elif math.isnan(scope.patient_age_years):
        msg = "PatientAge is not one to three digits and D, W, M or Y (PS3.5 6.2), such as 045Y"
        raise DecodeError(msg)
    elif not low <= scope.patient_age_years <= high:
        msg = f"PatientAge is outside what the model accepts: {accepted}"
        raise OutOfScopeError(msg)
