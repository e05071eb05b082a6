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

# What a message may tell of the file: Defined Terms (PS3.3 C.7.3.1.1.1, C.8.11.5.1), and nothing somebody typed in.
_MODALITIES = frozenset(
    {"ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DG", "DMS", "DOC"}
    | {"DX", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS"}
    | {"KER", "KO", "LEN", "LS", "M3D", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF"}
    | {"OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE"}
    | {"RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SC", "SEG", "SM"}
    | {"SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "XA", "XAPROTOCOL", "XC"}
)
_VIEW_POSITIONS = frozenset({"AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "CC", "MLO", "ML", "LM"})
# Devices and gateways that draw text into the pixels: what does not deny it may hold it.
_DRAWN_MODALITIES = {"US", "IVUS"}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def check_scope(scope: Scope, described: ImageInput | WaveformInput, *, burned_in: Policy | None = None) -> None:
    """Refuse a file that the contract does not accept.

    Messages name keywords and what the contract accepts. Of the file's own values
    they tell those that are Defined Terms of the standard (Modality, View Position), and none that anybody typed in.

    Ultrasound and Secondary Capture that do not deny it (Burned In Annotation NO)
    count as holding burned-in text. A localizer is refused: it shows where other
    images lie, and no contract can ask for it.

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
    _check("Modality", scope.modality, described.modalities, Policy.REFUSE, told=_MODALITIES)
    _check("SOPClassUID", scope.sop_class_uid, described.sop_classes, absent)
    if not isinstance(described, ImageInput):
        return
    _check("BodyPartExamined", scope.body_part_examined, described.body_parts, absent)
    _check("ViewPosition", scope.view_position, described.view_positions, absent, told=_VIEW_POSITIONS)
    _check_age(scope, described, absent)
    if "LOCALIZER" in _values(scope.image_type):
        msg = "ImageType says LOCALIZER: give the images it was made for"
        raise OutOfScopeError(msg)
    if "FOR PROCESSING" in _values(scope.presentation_intent) and described.for_processing is Policy.REFUSE:
        msg = "PresentationIntentType is FOR PROCESSING: the model reads FOR PRESENTATION images only"
        raise OutOfScopeError(msg)
    if Policy.REFUSE in (described.burned_in_annotation, burned_in):
        _check_burned_in(scope)


def _check_burned_in(scope: Scope) -> None:
    told = _values(scope.burned_in_annotation)
    if "YES" in told:
        msg = "BurnedInAnnotation is YES: images that may name a patient are refused; have the text removed"
        raise OutOfScopeError(msg)
    drawn = scope.modality in _DRAWN_MODALITIES or f"{scope.sop_class_uid}.".startswith(f"{_SECONDARY_CAPTURE}.")
    if drawn and "NO" not in told:
        msg = (
            "BurnedInAnnotation is missing, and ultrasound and secondary captures may hold text that names a patient:"
            " they are refused; have it set to NO where there is none"
        )
        raise OutOfScopeError(msg)


def _values(joined: str | None) -> list[str]:
    return (joined or "").split("\\")


def _check(
    keyword: str,
    value: str | None,
    accepted: Sequence[str],
    absent: Policy,
    *,
    told: frozenset[str] = frozenset(),
) -> None:
    if not accepted:
        return
    wanted = f"the model accepts only {', '.join(accepted)}"
    if value is None:
        if absent is Policy.REFUSE:
            raise MissingAttributeError(keyword, f"{wanted}; have it filled in, or give such a file")
    elif value.upper() not in {entry.upper() for entry in accepted}:
        has = f"is {value.upper()}, " if value.upper() in told else "is "
        msg = f"{keyword} {has}outside what the model accepts: {', '.join(accepted)}; ask a model made for it"
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
