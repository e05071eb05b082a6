"""Sources to requests and responses to results, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pydicom
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from radserve import Classification, Priority, Rejection, _codec
from radserve.contracts import (
    Code,
    Contract,
    Datatype,
    FixedWindow,
    ImageInput,
    Label,
    Lead,
    Policy,
    Task,
    TensorSpec,
    TextInput,
    WaveformInput,
    dump_contract,
    wire_tensors,
)
from radserve.errors import (
    ContractError,
    DecodeError,
    InferenceFailedError,
    InputError,
    MissingAttributeError,
    OutOfScopeError,
    RadserveError,
)

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
IMAGE = ImageInput(
    modalities=("CT",), rows=4, columns=4, window=FixedWindow(center=40, width=400), absent_attributes=Policy.ACCEPT
)
WAVEFORM = WaveformInput(
    modalities=("ECG",),
    leads=(Lead(name="I", codes=(Code(value="5.6.3-9-1", scheme="SCPECG", meaning="Lead I"),)),),
    sampling_frequency_hz=100,
    samples=1000,
)
TEXT = TextInput(languages=("en", "zh"), max_tokens=8, max_bytes=64)


def contract(described: ImageInput | WaveformInput | TextInput = IMAGE, **changed: Any) -> Contract:
    task = {ImageInput: Task.IMAGE_CLASSIFICATION, WaveformInput: Task.SIGNAL_CLASSIFICATION}
    kind = task.get(type(described), Task.TEXT_CLASSIFICATION)
    inputs, outputs = wire_tensors(kind, described, 2)
    standard: dict[str, Any] = {
        "name": "demo",
        "version": 3,
        "task": kind,
        "intended_use": "Tests only",
        "input": described,
        "inputs": inputs,
        "outputs": outputs,
        "max_batch_size": 8,
        "labels": tuple(
            Label(name=name, code=Code(value=name[0], scheme="99TEST", meaning=name)) for name in ("normal", "opacity")
        ),
        "model_sha256": "0" * 64,
        "exporter_version": "0",
    }
    return Contract(**{**standard, **changed})


def tensors(**changed: Any) -> Contract:
    standard: dict[str, Any] = {
        "name": "raw",
        "version": 1,
        "task": Task.TENSORS,
        "inputs": (
            TensorSpec(name="X", dtype=Datatype.FP32, dims=(-1, 2)),
            TensorSpec(name="NOTE", dtype=Datatype.BYTES, dims=(1,)),
        ),
        "outputs": (TensorSpec(name="Y", dtype=Datatype.BYTES, dims=(-1,)),),
        "max_batch_size": 4,
        "model_sha256": "0" * 64,
        "exporter_version": "0",
    }
    return Contract(**{**standard, **changed})


@pytest.mark.parametrize(
    ("described", "source", "name", "shape", "dtype"),
    [
        (IMAGE, TEST_FILES / "CT_small.dcm", "PIXELS", (1, 4, 4, 1), np.uint8),
        (IMAGE, str(TEST_FILES / "CT_small.dcm"), "PIXELS", (1, 4, 4, 1), np.uint8),
        (IMAGE, (TEST_FILES / "CT_small.dcm").read_bytes(), "PIXELS", (1, 4, 4, 1), np.uint8),
        (IMAGE, np.zeros((9, 7), np.int16), "PIXELS", (1, 4, 4, 1), np.uint8),
        (IMAGE, np.zeros((4, 4, 1), np.uint8), "PIXELS", (1, 4, 4, 1), np.uint8),
        (WAVEFORM, TEST_FILES / "waveform_ecg.dcm", "SAMPLES", (1, 1000, 1), np.int16),
        (WAVEFORM, np.zeros((1000, 1), np.int16), "SAMPLES", (1, 1000, 1), np.int16),
        (TEXT, "未见气胸", "TEXT", (1, 1), object),
    ],
)
def test_a_source_becomes_the_wires_array(
    described: ImageInput | WaveformInput | TextInput, source: Any, name: str, shape: tuple[int, ...], dtype: type
) -> None:
    prepared = _codec.prepare(contract(described), source)
    assert list(prepared.inputs) == [name]
    assert prepared.inputs[name].shape == shape
    assert prepared.inputs[name].dtype == dtype


def test_an_array_that_is_the_wires_passes_as_it_is() -> None:
    array = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    assert _codec.prepare(contract(), array).inputs["PIXELS"][0] is not None
    np.testing.assert_array_equal(_codec.prepare(contract(), array).inputs["PIXELS"][0], array)


def test_the_instance_is_remembered() -> None:
    prepared = _codec.prepare(contract(), TEST_FILES / "CT_small.dcm")
    assert prepared.sop_instance_uids == (str(pydicom.dcmread(TEST_FILES / "CT_small.dcm").SOPInstanceUID),)


@pytest.mark.parametrize(
    ("described", "source", "error"),
    [
        (IMAGE, TEST_FILES / "MR_small.dcm", OutOfScopeError),
        (IMAGE, TEST_FILES / "liver_1frame.dcm", OutOfScopeError),
        (IMAGE, TEST_FILES / "test-SR.dcm", OutOfScopeError),
        (IMAGE, TEST_FILES / "waveform_ecg.dcm", OutOfScopeError),
        (WAVEFORM, TEST_FILES / "CT_small.dcm", OutOfScopeError),
        (IMAGE, TEST_FILES / "MR_truncated.dcm", DecodeError),
        (IMAGE, (TEST_FILES / "CT_small.dcm").read_bytes()[:-100], DecodeError),
        (IMAGE, TEST_FILES / "UN_sequence.dcm", MissingAttributeError),
        (IMAGE, np.zeros((3, 3, 3)), InputError),
        (IMAGE, np.zeros((0, 3)), InputError),
        (IMAGE, np.array([["a"]]), InputError),
        (IMAGE, np.array([[np.nan]]), InputError),
        (WAVEFORM, np.zeros((1000, 1)), InputError),
        (TEXT, TEST_FILES / "CT_small.dcm", InputError),
        (TEXT, b"no pneumothorax", InputError),
        (TEXT, " \n", InputError),
        (TEXT, "x" * 65, InputError),
        (TEXT, "\ud800", InputError),
        (TEXT, 7, InputError),
    ],
)
def test_a_source_that_the_model_does_not_take_is_refused(
    described: ImageInput | WaveformInput | TextInput, source: Any, error: type[RadserveError]
) -> None:
    with pytest.raises(error):
        _codec.prepare(contract(described), source)


def test_the_scope_is_checked_before_the_pixels_are_decoded() -> None:
    dataset = pydicom.dcmread(TEST_FILES / "MR_small.dcm")
    dataset.PixelData = b"\0\0"
    with pytest.raises(OutOfScopeError):
        _codec.prepare(contract(), dataset)


@pytest.mark.parametrize(("described", "source"), [(TEXT, "text"), (IMAGE, np.zeros((4, 4)))])
def test_a_frame_can_only_be_chosen_of_a_dicom_image(described: ImageInput | TextInput, source: Any) -> None:
    with pytest.raises(InputError, match="frame="):
        _codec.prepare(contract(described), source, frame=0)


def test_a_model_of_tensors_has_nothing_to_prepare() -> None:
    with pytest.raises(InputError, match="infer"):
        _codec.prepare(tensors(), "x")


def arrays(**changed: Any) -> dict[str, Any]:
    return {"X": np.zeros((1, 3, 2), np.float32), "NOTE": np.array([["a"]], dtype=object), **changed}


def test_arrays_that_fit_the_contract_pass() -> None:
    assert set(_codec.check_arrays(tensors(), arrays())) == {"X", "NOTE"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        np.zeros(3),
        arrays(Z=np.zeros(1)),
        arrays(X=[[0.0]]),
        arrays(X=np.zeros((1, 3, 2))),
        arrays(X=np.zeros((3, 2), np.float32)),
        arrays(X=np.zeros((1, 3, 3), np.float32)),
        arrays(X=np.zeros((1, 0, 2), np.float32)),
        arrays(X=np.zeros((2, 3, 2), np.float32)),
        arrays(X=np.full((1, 3, 2), np.inf, np.float32)),
        arrays(X=np.float32(3)),
        arrays(X=np.array(3, np.float32)),
        {"X": np.zeros((5, 3, 2), np.float32), "NOTE": np.full((5, 1), b"", dtype=object)},
    ],
)
def test_arrays_unlike_the_contract_are_refused(given: Any) -> None:
    with pytest.raises(InputError):
        _codec.check_arrays(tensors(), given)


def test_elements_of_a_bytes_tensor_must_be_text() -> None:
    with pytest.raises(InputError, match="BYTES"):
        _codec.to_request(tensors(), arrays(NOTE=np.array([[3]], dtype=object)), request_id="r")


def test_the_request_names_version_id_priority_and_queue_timeout() -> None:
    prepared = _codec.prepare(contract(TEXT), "气胸")
    request = _codec.to_request(
        contract(TEXT), prepared.inputs, request_id="r", priority=Priority.STAT, queue_timeout_s=0.25
    )
    assert (request.model_name, request.model_version, request.id) == ("demo", "3", "r")
    assert request.parameters["priority"].uint64_param == 1
    assert request.parameters["timeout"].int64_param == 250_000
    assert request.raw_input_contents[0] == b"\x06\0\0\0" + "气胸".encode()
    assert [output.name for output in request.outputs] == ["PROBABILITIES", "DECISIONS", "TOKEN_COUNT"]


def test_the_canary_fits_its_contract() -> None:
    found = _codec.check_arrays(tensors(), _codec.canary(tensors()))
    assert found["X"].shape == (1, 1, 2)
    assert found["NOTE"].tolist() == [[b"canary"]]


def response(
    probabilities: Any = (0.2, 0.8), decisions: Any = (0, 2), count: int | None = None, version: str = "3"
) -> service_pb2.ModelInferResponse:
    made = service_pb2.ModelInferResponse(model_name="demo", model_version=version, id="r")
    outputs = [
        ("PROBABILITIES", "FP32", np.array([probabilities], "<f4")),
        ("DECISIONS", "INT8", np.array([decisions], "i1")),
    ]
    if count is not None:
        outputs.append(("TOKEN_COUNT", "INT32", np.array([[count]], "<i4")))
    for name, datatype, array in outputs:
        made.outputs.add(name=name, datatype=datatype, shape=array.shape)
        made.raw_output_contents.append(array.tobytes())
    return made


def result(
    answer: service_pb2.ModelInferResponse, described: ImageInput | TextInput = IMAGE, **changed: Any
) -> Classification:
    known = contract(described, **changed)
    found = _codec.to_result(known, _codec.Prepared(inputs={}), _codec.to_answer(known, answer, batch_size=1))
    assert isinstance(found, Classification)
    return found


def test_findings_are_ordered_coded_and_decided_by_the_server() -> None:
    found = result(response())
    assert [finding.label for finding in found.findings] == ["opacity", "normal"]
    assert found.top.is_positive
    assert not found.findings[1].is_positive
    assert found.top.code.scheme == "99TEST"
    assert (found.model, found.version) == ("demo", 3)
    assert found.provenance.contract_sha256 == contract().sha256
    assert found.provenance.intended_use == "Tests only"
    assert "opacity 0.800 (positive)" in repr(found)


def test_an_indeterminate_decision_is_told() -> None:
    banded = tuple(msgspec.structs.replace(label, indeterminate=(0.4, 0.9)) for label in contract().labels)
    assert result(response(decisions=(0, 1)), labels=banded).top.is_indeterminate


@pytest.mark.parametrize(
    ("probabilities", "decisions"), [((0.2, 0.8), (2, 0)), ((0.2, 0.8), (0, 1)), ((0.2, 0.3), (0, 2))]
)
def test_a_decision_that_contradicts_its_threshold_is_no_result(probabilities: object, decisions: object) -> None:
    with pytest.raises(InferenceFailedError, match="contradicts its threshold"):
        result(response(probabilities, decisions))


@pytest.mark.parametrize("changed", [{"model_name": "other"}, {"id": "of another request"}])
def test_an_answer_to_another_request_is_no_result(changed: dict[str, str]) -> None:
    answer = response()
    for name, value in changed.items():
        setattr(answer, name, value)
    with pytest.raises(InferenceFailedError, match="another request"):
        _codec.to_answer(contract(), answer, batch_size=1, request_id="r")


def test_a_result_becomes_json() -> None:
    plain = json.loads(result(response()).to_json())
    assert plain["model"] == "demo"
    assert plain["findings"][0]["code"] == {"value": "o", "scheme": "99TEST", "meaning": "opacity"}
    assert plain["created"].endswith("+00:00")


def _changed(**fields: Any) -> service_pb2.ModelInferResponse:
    made = response()
    for name, value in fields.items():
        setattr(made.outputs[0], name, value)
    return made


def _reshaped(*shape: int) -> service_pb2.ModelInferResponse:
    made = response()
    made.outputs[0].shape[:] = shape
    return made


def _without_contents() -> service_pb2.ModelInferResponse:
    made = response()
    del made.raw_output_contents[1]
    return made


def _short() -> service_pb2.ModelInferResponse:
    made = response()
    made.raw_output_contents[0] = b"\0\0\0\0"
    return made


@pytest.mark.parametrize(
    "answer",
    [
        response(version="2"),
        response(probabilities=(np.nan, 0.5)),
        response(probabilities=(np.inf, 0.5)),
        response(probabilities=(1.5, 0.5)),
        response(probabilities=(-0.1, 0.5)),
        response(decisions=(0, 3)),
        response(probabilities=(0.1, 0.2, 0.7)),
        _changed(name="SCORES"),
        _changed(datatype="FP64"),
        _reshaped(2, 1),
        _reshaped(2),
        _without_contents(),
        _short(),
        service_pb2.ModelInferResponse(model_version="3"),
    ],
)
def test_an_answer_unlike_the_contract_is_not_trusted(answer: service_pb2.ModelInferResponse) -> None:
    with pytest.raises(InferenceFailedError, match="cannot be trusted"):
        result(answer)


@pytest.mark.parametrize("count", [8, 9])
def test_a_report_with_more_tokens_than_the_model_reads_is_out_of_scope(count: int) -> None:
    answer = response(count=count)
    if count <= TEXT.max_tokens:
        assert result(answer, TEXT).findings
    else:
        with pytest.raises(OutOfScopeError, match="9 tokens"):
            result(answer, TEXT)


@pytest.mark.parametrize("raw", [b"\x05\0\0\0ab", b"\x01\0", b"\x02\0\0\0ab\x09"])
def test_a_torn_bytes_output_is_not_trusted(raw: bytes) -> None:
    made = service_pb2.ModelInferResponse(model_version="1")
    made.outputs.add(name="Y", datatype="BYTES", shape=[1, 1])
    made.raw_output_contents.append(raw)
    with pytest.raises(InferenceFailedError):
        _codec.to_answer(tensors(), made, batch_size=1)


def _config(name: str, text: str | None) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig(name=name)
    if text is not None:
        config.parameters["radserve.contract"].string_value = text
    return config


def test_a_contract_is_read_from_the_models_configuration() -> None:
    assert _codec.read_contract(_config("demo", dump_contract(contract()))) == contract()
    assert _codec.read_contract(_config("demo_pipeline", None)) is None


def test_of_an_output_that_is_not_asked_for_nothing_is_sent() -> None:
    request = _codec.to_request(
        contract(), _codec.prepare(contract(), np.zeros((4, 4, 1), np.uint8)).inputs, request_id="r"
    )
    assert not request.parameters


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("other", dump_contract(contract())),
        ("demo", "{}"),
        ("demo", "not JSON"),
        ("demo", dump_contract(contract()).replace('"schema_version":2', '"schema_version":3')),
        ("demo", dump_contract(contract()).replace('"rows":4', '"rows":1000000000')),
        ("demo", dump_contract(contract()).replace('"rows":4', '"rows":-1')),
    ],
)
def test_a_hostile_or_newer_contract_is_refused_by_the_models_name(name: str, text: str) -> None:
    with pytest.raises(ContractError, match=f"model {name}"):
        _codec.read_contract(_config(name, text))


def test_results_are_frozen() -> None:
    with pytest.raises(AttributeError):
        result(response()).version = 4  # type: ignore[misc]
    assert msgspec.structs.replace(contract(), version=4) != contract()
    assert Rejection(index=1, error=InputError("x")).index == 1


def test_a_priority_that_is_none_of_the_enum_is_refused() -> None:
    prepared = _codec.prepare(contract(TEXT), "text")
    with pytest.raises(InputError, match=r"Priority\.STAT"):
        _codec.to_request(contract(TEXT), prepared.inputs, request_id="r", priority="STAT")  # type: ignore[arg-type]
