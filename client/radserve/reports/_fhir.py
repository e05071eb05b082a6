"""A result as a FHIR R4 DiagnosticReport with what was found as contained Observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fhir.resources.R4B.diagnosticreport import DiagnosticReport

from radserve.contracts import Task
from radserve.errors import InputError
from radserve.reports._context import LOCAL_SCHEME, MANUFACTURER, NOT_REVIEWED
from radserve.results import Classification, Finding, GeneratedText, Region, Result, Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve.contracts import Code

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "MDC": "urn:iso:std:iso:11073:10101",
    "UCUM": "http://unitsofmeasure.org",
}
_OTHER_SCHEMES = "urn:x-radserve:coding-scheme:"
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_INTERPRETATIONS = {"POS": "Positive", "NEG": "Negative", "IND": "Indeterminate"}
_DEVICE = "model"
# "Diagnostic Imaging Report" of PS3.16 CID 7000. Of a waveform or a text the contract does not say what was done.
_IMAGING = {"coding": [{"system": _SYSTEMS["LN"], "code": "18748-4"}]}
_IMAGING_TASKS = {Task.IMAGE_CLASSIFICATION, Task.IMAGE_SEGMENTATION}


def diagnostic_report(result: Result, subject: str | None) -> dict[str, Any]:
    """See ``radserve.reports.to_fhir``."""
    observations = [
        {**_observation(result, number, subject), **content}
        for number, content in enumerate(_contents(result), start=1)
    ]
    coding = _IMAGING if result.provenance.task in _IMAGING_TASKS else {}
    report = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "code": {**coding, "text": f"{NOT_REVIEWED}: {result.model}"},
        "issued": result.provenance.created.isoformat(timespec="milliseconds"),
        **_subject(subject),
        "contained": [_device(result), *observations],
        "result": [{"reference": f"#{observation['id']}"} for observation in observations],
    }
    if isinstance(result, GeneratedText) and result.is_complete:
        report["conclusion"] = result.text
    try:
        DiagnosticReport.model_validate(report)
    except ValueError:
        # What the library says quotes the report.
        msg = "the result cannot be written as FHIR R4: a label, a code or the subject breaks its rules for text"
        raise InputError(msg) from None
    return report


def _subject(subject: str | None) -> dict[str, Any]:
    return {} if subject is None else {"subject": {"reference": subject}}


def _device(result: Result) -> dict[str, Any]:
    told = result.provenance
    versions = {
        "model version": str(result.version),
        "model SHA-256": told.model_sha256,
        "contract SHA-256": told.contract_sha256,
        "radserve version": told.sdk_version,
    }
    note = {"note": [{"text": told.intended_use}]} if told.intended_use.strip() else {}
    return {
        "resourceType": "Device",
        "id": _DEVICE,
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": result.model, "type": "model-name"}],
        "version": [{"type": {"text": kind}, "value": value} for kind, value in versions.items()],
        **note,
    }


def _observation(result: Result, number: int, subject: str | None) -> dict[str, Any]:
    uids = dict.fromkeys(result.provenance.sop_instance_uids)
    derived = [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}} for uid in uids]
    return {
        "resourceType": "Observation",
        "id": f"finding-{number}",
        "status": "preliminary",
        **_subject(subject),
        "device": {"reference": f"#{_DEVICE}"},
        **({"derivedFrom": derived} if derived else {}),
    }


def _contents(result: Result) -> Iterator[dict[str, Any]]:
    if isinstance(result, Classification):
        yield from map(_finding, result.findings)
    elif isinstance(result, Segmentation):
        yield from map(_region, result.findings)
    elif isinstance(result, GeneratedText):
        cut = {} if result.is_complete else {"note": [{"text": "Cut off at the longest text that the model writes."}]}
        yield {"code": _local("GENERATED_TEXT", "Generated text"), "valueString": result.text, **cut}


def _finding(finding: Finding) -> dict[str, Any]:
    decision = "POS" if finding.is_positive else "IND" if finding.is_indeterminate else "NEG"
    limits = [("THRESHOLD", "Positive from this probability on", finding.threshold)]
    if finding.indeterminate is not None:
        lower, upper = finding.indeterminate
        limits += [
            ("BAND_FROM", "Indeterminate from this probability on", lower),
            ("BAND_BELOW", "Indeterminate below this probability", upper),
        ]
    return {
        "code": _concept(finding.code, finding.label),
        "valueQuantity": _quantity(finding.probability, "probability", "1"),
        "interpretation": [_interpretation(decision)],
        "component": [
            {"code": _local(code, meaning), "valueQuantity": _quantity(value, "probability", "1")}
            for code, meaning, value in limits
        ],
    }


def _region(region: Region) -> dict[str, Any]:
    size, unit = (region.area_mm2, "mm2") if region.volume_mm3 is None else (region.volume_mm3, "mm3")
    measured = {} if size is None else {"valueQuantity": _quantity(size, unit, unit)}
    pixels = {"code": _local("PIXEL_COUNT", "Pixels of the region"), "valueInteger": region.pixel_count}
    return {
        "code": _concept(region.code, region.label),
        **measured,
        "interpretation": [_interpretation("POS" if region.is_positive else "NEG")],
        "component": [pixels],
    }


def _concept(code: Code, text: str) -> dict[str, Any]:
    system = _SYSTEMS.get(code.scheme, f"{_OTHER_SCHEMES}{code.scheme}")
    return {"coding": [{"system": system, "code": code.value, "display": code.meaning}], "text": text}


def _local(value: str, meaning: str) -> dict[str, Any]:
    return {"coding": [{"system": f"{_OTHER_SCHEMES}{LOCAL_SCHEME}", "code": value, "display": meaning}]}


def _quantity(value: float, unit: str, code: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": _SYSTEMS["UCUM"], "code": code}


def _interpretation(code: str) -> dict[str, Any]:
    return {"coding": [{"system": _INTERPRETATION, "code": code, "display": _INTERPRETATIONS[code]}]}
