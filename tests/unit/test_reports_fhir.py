"""FHIR: R4's structure as fhir.resources knows it, and its codes by the value sets that it does not check."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from fhir.resources.R4B.device import Device
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.observation import Observation
from pydantic import ValidationError
from pydicom.sr.codedict import codes
from support.answers import classification, drawn, finding, generated, generated_text, provenance, segmentation

from radserve.contracts import Code, Task
from radserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve import Result

# FHIR R4: http://hl7.org/fhir/R4/valueset-diagnostic-report-status.html, valueset-observation-status.html,
# valueset-observation-interpretation.html and valueset-device-nametype.html.
REPORT_STATUS = {"registered", "partial", "preliminary", "final", "amended", "corrected", "appended", "cancelled"}
OBSERVATION_STATUS = {"registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error"}
INTERPRETATIONS = {"POS": "Positive", "NEG": "Negative", "IND": "Indeterminate"}
NAME_TYPES = {
    "udi-label-name",
    "user-friendly-name",
    "patient-reported-name",
    "manufacturer-name",
    "model-name",
    "other",
}


KINDS = ("classification", "segmentation", "generated text", "generated text, cut off")


def results() -> dict[str, Result]:
    file = generated("ct_lesion")
    return {
        "classification": classification(
            file,
            findings=(
                finding(indeterminate=(0.4, 0.6)),
                finding("normal", 0.5, is_indeterminate=True, is_positive=False),
            ),
        ),
        "segmentation": segmentation(drawn(file.Rows, file.Columns), file),
        "generated text": generated_text("左侧气胸。\nSecond line."),
        "generated text, cut off": generated_text(is_complete=False),
    }


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from nodes(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subject", [None, "Patient/123"])
def test_it_is_a_preliminary_report_of_r4(kind: str, subject: str | None) -> None:
    report = json.loads(json.dumps(results()[kind].to_fhir(subject=subject)))
    DiagnosticReport.model_validate(report)
    device, *observations = report["contained"]
    Device.model_validate(device)
    for observation in observations:
        Observation.model_validate(observation)
    assert report["status"] == "preliminary"
    assert {each["status"] for each in observations} == {"preliminary"}
    assert {str(each.get("subject", {}).get("reference")) for each in (report, *observations)} == {str(subject)}
    assert "not reviewed" in report["code"]["text"]


@pytest.mark.parametrize("kind", KINDS)
def test_its_codes_are_of_the_value_sets(kind: str) -> None:
    report = results()[kind].to_fhir()
    assert report["status"] in REPORT_STATUS
    for node in nodes(report):
        if node.get("resourceType") == "Observation":
            assert node["status"] in OBSERVATION_STATUS
            assert len([name for name in node if name.startswith("value")]) <= 1
        if "deviceName" in node:
            assert {name["type"] for name in node["deviceName"]} <= NAME_TYPES
        for interpretation in node.get("interpretation", ()):
            for coding in interpretation["coding"]:
                assert coding["system"] == "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
                assert INTERPRETATIONS[coding["code"]] == coding["display"]
        if "valueQuantity" in node:
            assert node["valueQuantity"]["system"] == "http://unitsofmeasure.org"
            assert node["valueQuantity"]["code"] in {"1", "mm2", "mm3"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_reference_leads_to_a_contained_resource_and_every_one_is_referred_to(kind: str) -> None:
    report = results()[kind].to_fhir()
    contained = {f"#{each['id']}" for each in report["contained"]}
    referred = {node["reference"] for node in nodes(report) if "reference" in node}
    assert referred == contained


def test_a_finding_is_an_observation_with_code_probability_and_limits() -> None:
    first, second = (each for each in results()["classification"].to_fhir()["contained"][1:])
    assert first["code"]["coding"] == [
        {"system": "http://snomed.info/sct", "code": "36118008", "display": "Pneumothorax"}
    ]
    assert first["code"]["text"] == "pneumothorax"
    assert first["valueQuantity"]["value"] == 0.9375
    assert first["interpretation"][0]["coding"][0]["code"] == "POS"
    limits = {each["code"]["coding"][0]["code"]: each["valueQuantity"]["value"] for each in first["component"]}
    assert limits == {"THRESHOLD": 0.5, "BAND_FROM": 0.4, "BAND_BELOW": 0.6}
    assert second["interpretation"][0]["coding"][0]["code"] == "IND"


def test_a_region_is_an_observation_with_area_and_pixels() -> None:
    answer = results()["segmentation"]
    liver, lesion = (each for each in answer.to_fhir()["contained"][1:])
    assert (liver["valueQuantity"]["unit"], liver["interpretation"][0]["coding"][0]["code"]) == ("mm2", "POS")
    assert lesion["component"][0]["valueInteger"] == answer.to_dict()["findings"][1]["pixel_count"]


def test_a_region_of_a_stack_has_a_volume() -> None:
    answer = segmentation(drawn(2, 40, 60))
    _, liver, _ = answer.to_fhir()["contained"]
    volume = answer.findings[0].volume_mm3
    assert liver["valueQuantity"] == {
        "value": volume, "unit": "mm3", "system": "http://unitsofmeasure.org", "code": "mm3"
    }  # fmt: skip


@pytest.mark.parametrize("task", Task)
def test_a_report_about_images_is_coded_as_one(task: Task) -> None:
    title = codes.cid7000.DiagnosticImagingReport
    assert title.scheme_designator == "LN"
    expected = [{"system": "http://loinc.org", "code": title.value}]
    code = classification(provenance=provenance(task=task)).to_fhir()["code"]
    assert code.get("coding", []) == (expected if task.value.startswith("image_") else [])
    assert "not reviewed" in code["text"]


def test_a_text_is_the_conclusion_unless_it_was_cut_off() -> None:
    whole, cut = (results()[kind].to_fhir() for kind in ("generated text", "generated text, cut off"))
    assert whole["conclusion"] == whole["contained"][1]["valueString"] == "左侧气胸。\nSecond line."
    assert "conclusion" not in cut
    assert "Cut off" in cut["contained"][1]["note"][0]["text"]


def test_model_time_and_sources_are_told() -> None:
    file = generated("chest_xray")
    report = classification(file).to_fhir()
    device, observation, _ = report["contained"]
    assert device["deviceName"] == [{"name": "chest", "type": "model-name"}]
    versions = {each["type"]["text"]: each["value"] for each in device["version"]}
    assert versions == {
        "model version": "3",
        "model SHA-256": "0" * 64,
        "contract SHA-256": "1" * 64,
        "radserve version": "0.1.0",
    }
    assert device["note"] == [{"text": "Tests only"}]
    assert report["issued"] == "2026-11-22T10:30:00.000+00:00"
    identifier = observation["derivedFrom"][0]["identifier"]
    assert identifier == {"system": "urn:dicom:uid", "value": f"urn:oid:{file.SOPInstanceUID}"}


@pytest.mark.parametrize(
    "broken",
    [
        {"status": None},
        {"unknown": 1},
        {"result": [{"reference": 5}]},
        {"contained": [{"resourceType": "Observation", "status": "preliminary"}]},
    ],
)
def test_the_validator_refuses_what_is_broken(broken: dict[str, Any]) -> None:
    report = classification(provenance=provenance()).to_fhir()
    DiagnosticReport.model_validate(deepcopy(report))
    with pytest.raises(ValidationError):
        DiagnosticReport.model_validate({**report, **broken})


def test_what_fhir_cannot_hold_is_refused_without_being_quoted() -> None:
    spaced = finding(code=Code(value="two  blanks ", scheme="99TEST", meaning="x"))
    with pytest.raises(InputError, match="cannot be written as FHIR") as caught:
        classification(provenance=provenance(), findings=(spaced,)).to_fhir()
    assert "blanks" not in str(caught.value)
    assert caught.value.__cause__ is None
