"""A contract is input: bounded, consistent, and refused where this SDK cannot honour all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sdk_contracts import tensors

from radserve.contracts import (
    SCHEMA_VERSION,
    Code,
    Contract,
    Datatype,
    FixedWindow,
    ImageInput,
    Label,
    PercentileWindow,
    PixelAspect,
    Task,
    TensorSpec,
    TextInput,
    WholeVolume,
    dump_contract,
    parse_contract,
    wire_tensors,
)
from radserve.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA_1, SCHEMA_2, SCHEMA_3 = (
    Path(__file__).parents[1] / "support" / "contracts" / f"schema_{n}.json" for n in (1, 2, 3)
)


def contract(**changes: Any) -> Contract:
    described = ImageInput(modalities=("CT",), rows=32, columns=32, window=FixedWindow(center=40.0, width=400.0))
    labels = (
        Label(name="bleeding", code=Code(value="1", scheme="99X", meaning="x"), indeterminate=(0.4, 0.6)),
        Label(name="none", code=Code(value="2", scheme="99X", meaning="y")),
    )
    inputs, outputs = wire_tensors(Task.IMAGE_CLASSIFICATION, described, len(labels))
    values: dict[str, Any] = {
        "name": "head",
        "version": 3,
        "task": Task.IMAGE_CLASSIFICATION,
        "input": described,
        "inputs": inputs,
        "outputs": outputs,
        "max_batch_size": 8,
        "labels": labels,
        "model_sha256": "0" * 64,
        "exporter_version": "0.1.0",
    }
    return Contract(**(values | changes))


def edited(path: str, value: object) -> str:
    tree = json.loads(dump_contract(contract()))
    *parents, last = path.split(".")
    place: Any = tree
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(tree)


def test_survives_the_round_trip_with_the_same_hash() -> None:
    original = contract()
    assert parse_contract(dump_contract(original)) == original
    assert parse_contract(dump_contract(original)).sha256 == original.sha256


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("input.rows", 10**9),
        ("input.rows", -1),
        ("input.rows", 31),  # unlike the tensor
        ("input.rows", "32"),
        ("input.kind", "volume"),
        ("input.modalities", []),
        ("input.window.width", 0),
        ("input.window.kind", "auto"),
        ("input.wire_dtype", "FP64"),
        ("input.burned_in_annotation", "maybe"),
        ("inputs.0.dims", [10**9, 10**9, 1]),
        ("inputs.0.dims", [0, 32, 1]),
        ("inputs.0.dims", [1] * 9),
        ("inputs.0.name", "PIXELS\n"),
        ("outputs.0.dims", [3]),
        ("max_batch_size", 10**9),
        ("max_batch_size", 0),
        ("labels", []),
        ("labels.1.name", "bleeding"),
        ("labels.0.threshold", 1.5),
        ("labels.0.indeterminate", [0.6, 0.9]),
        ("labels.0.code.value", ""),
        ("calibration.temperature", 0),
        ("model_sha256", "z" * 64),
        ("task", "tensors"),
        ("task", "text_classification"),
        ("version", 0),
        ("name", "../../etc"),
        ("unknown", 1),
        ("schema_version", 0),
    ],
)
def test_hostile_or_broken_contract_is_refused(path: str, value: object) -> None:
    with pytest.raises(ContractError, match="export the model again"):
        parse_contract(edited(path, value))


@pytest.mark.parametrize("count", [1, 2])
def test_what_all_inputs_hold_together_is_bounded(count: int) -> None:
    inputs = tuple(TensorSpec(name=f"X{n}", dtype=Datatype.UINT8, dims=(2**27 + 1,)) for n in range(count))
    given = dump_contract(tensors()).replace(
        msgspec.json.encode(tensors().inputs, order="sorted").decode(), msgspec.json.encode(inputs).decode()
    )
    if count == 1:
        assert parse_contract(given).inputs == inputs
    else:
        with pytest.raises(ContractError, match="256 MiB together"):
            parse_contract(given)


def test_newer_schema_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(ContractError, match=r"pip install \. in a newer checkout of radserve"):
        parse_contract(edited("schema_version", SCHEMA_VERSION + 1))


@pytest.mark.parametrize("file", [SCHEMA_1, SCHEMA_2, SCHEMA_3])
def test_older_schemas_are_honoured(file: Path) -> None:
    tree = json.loads(file.read_text())
    read = parse_contract(file.read_text())
    assert (read.schema_version, read.name) == (tree["schema_version"], tree["name"])
    assert read.schema_version < SCHEMA_VERSION
    assert [label.name for label in read.labels] == [label["name"] for label in tree["labels"]]
    assert isinstance(read.input, ImageInput)
    assert (read.input.study, read.input.resize.pixels, read.reference) == (None, PixelAspect.IGNORE, None)


def _with_evidence(tree: dict[str, Any]) -> None:
    tree["evidence"] = {"rows": 7, "columns": 7, "layer": "last", "region": None}
    tree["outputs"].append({"name": "EVIDENCE", "dtype": "FP32", "dims": [7, 7]})


def _without_evidence(tree: dict[str, Any]) -> None:
    tree["evidence"] = None


def _with_a_crop(tree: dict[str, Any]) -> None:
    tree["input"]["crop"] = {"top": 0.1, "left": 0.0, "bottom": 0.0, "right": 0.0}


def _of_a_later_task(tree: dict[str, Any]) -> None:
    tree["task"] = "image_segmentation"
    tree["outputs"] = [{"name": "LABEL_MAP", "dtype": "UINT8", "dims": [28, 28]}]


@pytest.mark.parametrize(
    ("change", "later"),
    [
        (_with_evidence, "field evidence"),
        (_without_evidence, "field evidence"),
        (_with_a_crop, r"field input\.crop"),
        (_of_a_later_task, "task image_segmentation"),
    ],
)
def test_what_only_a_later_schema_has_is_refused_by_name(change: Callable[[dict[str, Any]], None], later: str) -> None:
    tree = json.loads(SCHEMA_1.read_text())
    change(tree)
    assert parse_contract(json.dumps(tree | {"schema_version": 2})).schema_version == 2
    with pytest.raises(ContractError, match=f"schema version 1, which has no {later}: export the model again"):
        parse_contract(json.dumps(tree))


def _with_a_study(tree: dict[str, Any]) -> None:
    tree["input"]["study"] = {"mode": "every_image", "combination": "mean"}


def _without_a_study(tree: dict[str, Any]) -> None:
    tree["input"]["study"] = None


def _with_square_pixels(tree: dict[str, Any]) -> None:
    tree["input"]["resize"]["pixels"] = "square"


def _with_a_category(tree: dict[str, Any]) -> None:
    tree["labels"][0]["category"] = tree["labels"][0]["code"]


@pytest.mark.parametrize(
    ("change", "later"),
    [
        (_with_a_study, r"field input\.study"),
        (_without_a_study, r"field input\.study"),
        (_with_square_pixels, r"field input\.resize\.pixels"),
        (_with_a_category, r"field labels\.category"),
    ],
)
def test_what_only_schema_3_has_is_refused_by_name(change: Callable[[dict[str, Any]], None], later: str) -> None:
    tree = json.loads(SCHEMA_2.read_text())
    change(tree)
    assert parse_contract(json.dumps(tree | {"schema_version": 3})).schema_version == 3
    with pytest.raises(ContractError, match=f"schema version 2, which has no {later}: export the model again"):
        parse_contract(json.dumps(tree))


@pytest.mark.parametrize("later", [{"reference": None}, {"priorities": False}])
def test_what_only_schema_4_has_is_refused_by_name(later: dict[str, Any]) -> None:
    tree = json.loads(SCHEMA_3.read_text()) | later
    assert parse_contract(json.dumps(tree | {"schema_version": 4})).schema_version == 4
    with pytest.raises(ContractError, match=f"schema version 3, which has no field {next(iter(later))}: export"):
        parse_contract(json.dumps(tree))


def test_a_volume_is_sent_whole_and_has_no_evidence_map() -> None:
    tree = json.loads(SCHEMA_2.read_text()) | {"schema_version": 3, "evidence": None}
    tree["outputs"] = [tensor for tensor in tree["outputs"] if tensor["name"] != "EVIDENCE"]
    tree["input"]["study"] = {"mode": "volume", "slices": 16}
    with pytest.raises(ContractError, match="inputs of"):
        parse_contract(json.dumps(tree))
    tree["inputs"][0]["dims"] = [16, *tree["inputs"][0]["dims"]]
    read = parse_contract(json.dumps(tree)).input
    assert isinstance(read, ImageInput)
    assert read.study == WholeVolume(slices=16)
    with pytest.raises(ContractError, match="a volume has no evidence map"):
        parse_contract(json.dumps(tree | {"evidence": {"rows": 7, "columns": 7, "layer": "last", "region": None}}))


def test_newer_schema_with_fields_this_sdk_does_not_know_is_called_newer() -> None:
    with pytest.raises(ContractError, match="schema version"):
        parse_contract(json.dumps({"schema_version": SCHEMA_VERSION + 1, "something": "new"}))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"schema_version":1,"x":' + "[" * 100_000, "", "\udcff", "null", "{}"]
)
def test_malformed_json_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        parse_contract(text.encode("utf-8", "surrogateescape"))


def test_oversized_contract_is_refused() -> None:
    with pytest.raises(ContractError, match="1 MiB"):
        parse_contract(" " * (2**20 + 1))


@given(st.text() | st.binary())
def test_no_text_ends_in_another_error(text: str | bytes) -> None:
    with pytest.raises(ContractError):
        parse_contract(text)


def test_contract_is_immutable() -> None:
    with pytest.raises(AttributeError):
        contract().name = "other"  # type: ignore[misc]


def test_window_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match="percentile"):
        PercentileWindow(lower=99, upper=1)


def test_task_takes_its_own_input_only() -> None:
    with pytest.raises(ValueError, match="does not take"):
        wire_tensors(Task.IMAGE_CLASSIFICATION, TextInput(languages=("en",), max_tokens=8), 1)
