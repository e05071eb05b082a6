from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.exports import image_spec, label, text_spec, write_spec

from radserve.errors import SpecError
from radserve_export.spec import load_spec
from radserve_export.spec_reference import reference

SPECS = Path(__file__).resolve().parents[2] / "export/specs"


def _image(**changes: Any) -> dict[str, Any]:
    return {**image_spec()["input"], **changes}


EVALUATION = {"generator": "chest_xray", "samples": 1, "seed": 1, "minimum_accuracy": 0.5}


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (image_spec(name="Has Spaces"), "name"),
        (image_spec(task="image_regression"), "task"),
        (image_spec(model=None), "model"),
        (image_spec(colour="red"), "colour"),
        (image_spec(input=None), "needs input"),
        (image_spec(labels=None), "needs labels"),
        (image_spec(input=_image(rows=0)), "rows"),
        (image_spec(input=_image(wire_dtype="FP32")), "wire_dtype"),
        (image_spec(input=text_spec()["input"]), "input"),
        (image_spec(labels=[label("a"), label("a")]), "labels: two have the same name"),
        (image_spec(labels=[label("a")]), "exclusive"),
        (image_spec(labels=[label("a", threshold=0.5, indeterminate=[0.6, 0.7]), label("b")]), "indeterminate"),
        (image_spec(network_input={"mean": [0.1, 0.2]}), "network_input.mean"),
        (image_spec(network_input={"std": [0.0]}), "std"),
        (image_spec(serving={"max_batch_size": 0}), "max_batch_size"),
        (image_spec(tokenizer="tokenizer.json"), "tokenizer"),
        (image_spec(parity={"atol": 0}), "atol"),
        (image_spec(parity={"atol": float("inf")}), "atol"),
        (image_spec(parity={"rtol": 1.0}), "rtol"),
        (image_spec(parity={"input_range": [float("-inf"), float("inf")]}), "input_range"),
        (image_spec(network_input={"scale": 0.0}), "scale"),
        (image_spec(network_input={"scale": float("nan")}), "scale"),
        (image_spec(network_input={"std": [float("inf")]}), "std"),
        (image_spec(input=_image(window={"kind": "file", "fallback_percentiles": [99, 1]})), "percentile"),
        (image_spec(input=_image(age_years=[90, 10])), "age"),
        ({"name": "t", "task": "tensors", "model": "m.keras", "exclusive": True}, "task tensors takes no exclusive"),
        (image_spec(evaluation=EVALUATION), "it also gives normal, which is no label here"),
        (image_spec(evaluation=EVALUATION | {"generator": "x"}), "evaluation.generator"),
        (image_spec(parity={"input_range": [1, -1]}), "input_range"),
        (text_spec(network_input={"scale": 2.0}), "network_input"),
        ({"name": "t", "task": "tensors", "model": "m.keras", "labels": [label("a")]}, "task tensors takes no labels"),
    ],
)
def test_a_wrong_spec_is_one_line_that_names_the_field(tmp_path: Path, spec: dict[str, Any], named: str) -> None:
    path = write_spec(tmp_path, spec)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_spec_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.yaml: No such file"):
        load_spec(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: t\nmodel: [m.keras\nparity: 1\n", r":3:7: not YAML: expected .* \(while .* sequence, from 2:8\)"),
        (b"name: t\n\ttask: tensors\n", r":2:1: not YAML: .*: indent with spaces"),
        (b"name: t\ntask: *t\n", r":2:7: not YAML: found undefined alias 't'"),
        (b"name: t\ntask: \xe4\n", r":2:7: not YAML: invalid continuation byte"),
        ("name: t\n\u00e4: \x01\n".encode(), r":2:4: not YAML: special characters are not allowed"),
        (b"name: t\nname: u\n", r":2:1: not YAML: name stands there twice"),
        (b"parity: {atol: 1, rtol: 2, atol: 3}\n", r":1:28: not YAML: atol stands there twice"),
        (b"name: 2020-13-01\n", r": not YAML: month must be in 1\.\.12"),
        (b"[" * 100_000, r": not YAML: maximum recursion depth exceeded.*"),
        (b"name: !!python/object/apply:os.getcwd []\n", r":1:7: not YAML: could not determine a constructor .*"),
    ],
)
def test_what_is_no_yaml_is_one_line_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert re.fullmatch(re.escape(str(path)) + message, str(caught.value))


def test_task_tensors_needs_three_fields(tmp_path: Path) -> None:
    spec = load_spec(write_spec(tmp_path, {"name": "t", "task": "tensors", "model": "m.keras"}))
    assert spec.serving.max_batch_size == 64


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, "it lacks name, task, model ("),
        (image_spec(name="Has Spaces"), "name must be small letters, digits and _, a letter first ("),
        (image_spec(input={"kind": "image"}), "input lacks modalities, rows, columns, window ("),
        (image_spec(input={"rows": 4}), "input lacks kind: image, waveform, text ("),
        (image_spec(input=_image(window={"kind": "fixed"})), "input.window lacks center, width ("),
        (
            image_spec(labels=[label("a"), {"name": "b", "code": {"scheme": "X"}}]),
            "labels[1].code lacks value, meaning (",
        ),
        (image_spec(max_batch_size=8), "it has no field max_batch_size: it belongs under serving ("),
        (image_spec(serving={"que": {}}), "serving has no field que: do you mean queue? ("),
        (
            image_spec(parity={"outputs": {"P": {"tol": 1}}}),
            "parity.outputs[...] has no field tol: do you mean rtol? (",
        ),
        (
            image_spec(input=_image(crop={"margin": 1})),
            "input.crop has no field margin: it has top, left, bottom, right (",
        ),
        (image_spec(input=_image(photometric="YBR")), "use one of MONOCHROME2, RGB ("),
        (image_spec(input={"kind": "pixels"}), "use one of image, waveform, text ("),
        (image_spec(task="image_regression"), "use one of image_classification, signal_classification, "),
    ],
)
def test_what_is_wrong_is_told_in_words_with_all_that_lacks(tmp_path: Path, spec: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write_spec(tmp_path, spec))
    assert told in str(caught.value)


def test_the_reference_of_all_fields_is_current() -> None:
    assert (SPECS / "README.md").read_text(encoding="utf-8") == reference()


def test_the_reference_lists_every_field_with_its_meaning() -> None:
    lines = reference().splitlines()
    for line in (
        "| `max_batch_size` | whole number from 0 to 4096 | `64` | Largest batch;",
        "| `name` | text: small letters",
    ):
        assert any(one.startswith(line) for one in lines), line
    for wanted in ("photometric", "network_input", "exclusive", "window", "resize", "labels", "versions_kept"):
        (row,) = [one for one in lines if one.startswith(f"| `{wanted}` ") and not one.startswith("| `labels` | text")]
        assert row.split(" | ")[-1].rstrip(" |"), row


def test_the_references_example_is_a_spec(tmp_path: Path) -> None:
    (tmp_path / "chest.yaml").write_text(reference().partition("```yaml\n")[2].partition("```")[0])
    assert load_spec(tmp_path / "chest.yaml").name == "chest"
