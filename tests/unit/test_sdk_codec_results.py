"""Responses to results and configurations to contracts, without a server."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from support.sdk_contracts import IMAGE, TEXT, contract, tensors
from tritonclient.grpc import model_config_pb2, service_pb2

from radserve import Classification, Rejection, _codec
from radserve.contracts import (
    SCHEMA_VERSION,
    Datatype,
    ImageInput,
    TensorSpec,
    TextInput,
    dump_contract,
)
from radserve.errors import (
    ContractError,
    InferenceFailedError,
    InputError,
    OutOfScopeError,
)


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
    message = answer.SerializeToString()
    answered = _codec.to_answer(known, message, batch_size=1, request_id=answer.id)
    found = _codec.to_result(known, _codec.Prepared(inputs={}), answered)
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


@pytest.mark.parametrize(
    ("band", "probability", "fitting"),
    [
        ((0.4, 0.9), 0.4 - 1e-5, {0}),
        ((0.4, 0.9), 0.4, {0, 1}),
        ((0.4, 0.9), 0.4 + 1e-5, {1}),
        ((0.4, 0.9), 0.9 - 1e-5, {1}),
        ((0.4, 0.9), 0.9, {1, 2}),
        ((0.4, 0.9), 0.9 + 1e-5, {2}),
        (None, 0.5 - 1e-5, {0}),
        (None, 0.5, {0, 2}),
        (None, 0.5 + 1e-5, {2}),
    ],
)
def test_on_an_edge_either_side_may_be_decided_and_nothing_else(
    band: tuple[float, float] | None, probability: float, fitting: set[int]
) -> None:
    labels = tuple(msgspec.structs.replace(label, indeterminate=band) for label in contract().labels)
    found = set()
    for decision in (0, 1, 2):
        answer = response((probability, 0.95), (decision, 2))
        try:
            result(answer, labels=labels)
        except InferenceFailedError:
            continue
        found.add(decision)
    assert found == fitting


@pytest.mark.parametrize("changed", [{"model_name": "other"}, {"id": "of another request"}])
def test_an_answer_to_another_request_is_no_result(changed: dict[str, str]) -> None:
    answer = response()
    for name, value in changed.items():
        setattr(answer, name, value)
    with pytest.raises(InferenceFailedError, match="another request"):
        _codec.to_answer(contract(), answer.SerializeToString(), batch_size=1, request_id="r")


def test_a_result_becomes_json() -> None:
    plain = json.loads(result(response()).to_json())
    assert plain["model"] == "demo"
    assert plain["findings"][0]["code"] == {"value": "opacity", "scheme": "99TEST", "meaning": "opacity"}
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
@pytest.mark.parametrize("after", [0, 1], ids=["first", "after a good one"])
def test_an_answer_unlike_the_contract_is_not_trusted(answer: service_pb2.ModelInferResponse, after: int) -> None:
    described = f"{after} before it"
    for _ in range(after):
        result(response(), description=described)
    with pytest.raises(InferenceFailedError, match="cannot be trusted"):
        result(answer, description=described)


def _longer() -> bytes:
    more = service_pb2.ModelInferResponse()
    more.outputs.add(name="MORE", datatype="INT8", shape=[1, 2])
    return bytes(response().SerializeToString() + more.SerializeToString())


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(response().SerializeToString()[:-1], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 40, id="no message"),
        pytest.param(_longer(), id="more behind it"),
        pytest.param(response().SerializeToString().replace(b"\x1a\x01r", b"\x1a\x01s"), id="another's"),
    ],
)
def test_a_message_unlike_the_one_before_is_not_trusted(message: bytes) -> None:
    described = contract()
    _codec.to_answer(described, response().SerializeToString(), batch_size=1, request_id="r")
    with pytest.raises(InferenceFailedError, match="cannot be trusted"):
        _codec.to_answer(described, message, batch_size=1, request_id="r")


def test_an_answer_like_one_before_has_its_own_contents() -> None:
    described = contract()
    for number in range(5):
        message = response((number / 10, 0.9))
        message.id = f"{number}"
        for name in sorted(("a", "b", "c"), reverse=number % 2 == 1):  # as Triton's maps, in any order
            message.parameters[name].int64_param = 1
        answer = _codec.to_answer(described, message.SerializeToString(), batch_size=1, request_id=f"{number}")
        assert answer.request_id == f"{number}"
        assert answer.arrays["PROBABILITIES"].tolist() == np.array([[number / 10, 0.9]], np.float32).tolist()
        assert answer.arrays["DECISIONS"].tolist() == [[0, 2]]


@pytest.mark.parametrize("count", [8, 9])
def test_a_report_with_more_tokens_than_the_model_reads_is_out_of_scope(count: int) -> None:
    answer = response(count=count)
    if count <= TEXT.max_tokens:
        assert result(answer, TEXT).findings
    else:
        with pytest.raises(OutOfScopeError, match="9 tokens"):
            result(answer, TEXT)


@pytest.mark.parametrize("raw", [b"\x05\0\0\0ab", b"\x01\0", b"\x02\0\0\0ab\x09", b"", bytes(8)])
def test_a_torn_bytes_output_is_not_trusted(raw: bytes) -> None:
    with pytest.raises(InferenceFailedError, match="does not fill its shape"):
        _codec.to_answer(tensors(), _of_bytes(raw).SerializeToString(), batch_size=1)


def test_a_bytes_output_is_read_no_further_than_its_shape() -> None:
    answer = _of_bytes(bytes(2**22)).SerializeToString()  # a million empty texts
    tracemalloc.start()
    try:
        with pytest.raises(InferenceFailedError, match="does not fill its shape"):
            _codec.to_answer(tensors(), answer, batch_size=1)
        assert tracemalloc.get_traced_memory()[1] < 2**22 + 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(1, -1), (1, -2), (-1, 4), (1, 2, -2)])
def test_an_answer_says_the_lengths_that_a_contract_leaves_free(shape: tuple[int, ...]) -> None:
    free = TensorSpec(name="Y", dtype=Datatype.FP32, dims=(-1,) * (len(shape) - 1))
    answer = service_pb2.ModelInferResponse(model_name="raw", model_version="1")
    answer.outputs.add(name="Y", datatype="FP32", shape=shape)
    answer.raw_output_contents.append(bytes(16))
    with pytest.raises(InferenceFailedError, match="another type or shape"):
        _codec.to_answer(tensors(outputs=(free,)), answer.SerializeToString(), batch_size=1)


def _of_bytes(raw: bytes) -> service_pb2.ModelInferResponse:
    made = service_pb2.ModelInferResponse(model_name="raw", model_version="1")
    made.outputs.add(name="Y", datatype="BYTES", shape=[1, 1])
    made.raw_output_contents.append(raw)
    return made


def _config(name: str, text: str | None) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig(name=name)
    if text is not None:
        config.parameters["radserve.contract"].string_value = text
    return config


def test_a_contract_is_read_from_the_models_configuration() -> None:
    assert _codec.read_contract(_config("demo", dump_contract(contract()))) == contract()
    assert _codec.read_contract(_config("demo_pipeline", None)) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("other", dump_contract(contract())),
        ("demo", "{}"),
        ("demo", "not JSON"),
        ("demo", dump_contract(contract()).replace(f'"schema_version":{SCHEMA_VERSION}', '"schema_version":99')),
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
