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
from radserve._codec._form import form_of
from radserve._codec._seen import Seen
from radserve.contracts import (
    Contract,
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


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2, len(content))) + content


def _in_pieces(first: float, request_id: str) -> tuple[bytes, bytes, bytes]:
    """An answer up to its id, from there to its contents, and these."""
    whole = response((first, 0.9))
    whole.id = request_id
    contents = b"".join(_field(6, content) for content in whole.raw_output_contents)
    before = _field(1, b"demo") + _field(2, b"3") + _field(3, request_id.encode())
    message = whole.SerializeToString()
    assert message.startswith(before)
    assert message.endswith(contents)
    return before, bytes(message[len(before) : -len(contents)]), contents


@pytest.mark.parametrize(
    ("more", "is_remembered"),
    [
        pytest.param(b"", True, id="nothing"),
        pytest.param(_field(15, b"x"), True, id="an unknown field"),
        pytest.param(_field(15, bytes(100)) * 1000, False, id="a very long one"),
        pytest.param(_field(3, b"r"), False, id="the id again"),
        pytest.param(_field(1, b"demo"), False, id="the model again"),
        pytest.param(_field(2, b"3"), False, id="the version again"),
        pytest.param(_in_pieces(0.3, "r")[2] + b"\x7a\x0e", False, id="what follows lies within an unknown field"),
    ],
)
def test_an_answer_is_taken_for_one_like_before_only_if_it_is_read_alike(more: bytes, is_remembered: bool) -> None:  # noqa: FBT001 - a parameter
    """Of a field that comes twice the last one counts, and what looks like contents may lie in another field."""
    described = contract(description=f"{more[:40]!r}")
    for first, request_id in ((0.3, "r"), (0.4, "s"), (0.3, "r")):
        before, middle, contents = _in_pieces(first, request_id)
        message = before + middle + more + contents
        assert _told(described, message, request_id) == _told_first(message, request_id)
        assert (form_of(described).seen.contents(message, 1, request_id) is not None) == is_remembered


def _told(described: Contract, message: bytes, request_id: str, batch_size: int = 1) -> str:
    """What is made of a message."""
    try:
        answer = _codec.to_answer(described, message, batch_size=batch_size, request_id=request_id)
    except InferenceFailedError as error:
        return str(error)
    return f"{answer.request_id} {answer.arrays}"


def _told_first(message: bytes, request_id: str) -> str:
    """What is made of a message before which there was none."""
    form_of(_NONE_BEFORE).seen = Seen()
    return _told(_NONE_BEFORE, message, request_id)


_NONE_BEFORE = contract(description="none before it")


@pytest.mark.parametrize("change", ["one bit", "the highest bit", "cut out", "doubled", "end here", "a byte more"])
def test_a_message_unlike_the_one_before_is_read_as_if_it_were_the_first(change: str) -> None:
    described = contract(description=change)
    good = b"".join(_in_pieces(0.3, "r"))
    as_ever = _told_first(good, "r")
    assert _told(described, good, "r") == as_ever
    for place in range(len(good)):
        before, byte, behind = good[:place], good[place], good[place + 1 :]
        changed = {
            "one bit": bytes((byte ^ 1,)) + behind,
            "the highest bit": bytes((byte ^ 0x80,)) + behind,
            "cut out": behind,
            "doubled": bytes((byte, byte)) + behind,
            "end here": b"",
            "a byte more": bytes((byte,)) + behind + good[place : place + 1],
        }
        message = before + changed[change]
        assert _told(described, message, "r") == _told_first(message, "r"), place
        assert _told(described, good, "r") == as_ever


def test_an_answer_is_taken_for_one_of_as_many_rows_only() -> None:
    described = contract(description="of one row and of two")
    answers = {}
    for rows in (1, 2):
        answers[rows] = response()
        for output, row in zip(answers[rows].outputs, (b"\0\0\0\0\0\0\0\0", b"\0\0"), strict=True):
            output.shape[:] = (rows, 2)
            answers[rows].raw_output_contents.append(row * rows)
        del answers[rows].raw_output_contents[:2]
    for sent, came in ((1, 1), (2, 2), (1, 2), (2, 1), (1, 1), (2, 2)):
        told = _told(described, answers[came].SerializeToString(), "r", sent)
        assert ("another type or shape" in told) == (sent != came)


def test_outputs_may_come_in_another_order_than_before() -> None:
    outputs = tuple(TensorSpec(name=name, dtype=Datatype.UINT8, dims=(2,)) for name in "AB")
    for names in ("AB", "BA", "AB", "BA"):
        answer = service_pb2.ModelInferResponse(model_name="raw", model_version="1", id="r")
        for name in names:
            answer.outputs.add(name=name, datatype="UINT8", shape=(1, 2))
            answer.raw_output_contents.append(name.encode() * 2)
        message = answer.SerializeToString()
        found = _codec.to_answer(tensors(outputs=outputs), message, batch_size=1, request_id="r")
        assert {name: array.tobytes() for name, array in found.arrays.items()} == {"A": b"AA", "B": b"BB"}


def test_what_servers_vary_is_not_remembered_without_end() -> None:
    described = contract(description="of many kinds")
    seen = form_of(described).seen
    for number in range(200):
        answer = response()
        answer.parameters["number"].int64_param = number
        answer.id = "r" * (1 + number // 2)
        _codec.to_answer(described, answer.SerializeToString(), batch_size=1, request_id=answer.id)
        answer.id = "r"
        _codec.to_answer(described, answer.SerializeToString(), batch_size=1, request_id="r")
    assert len(seen._alike) <= 64
    assert all(len(alike.middles) <= 64 for alike in seen._alike.values())


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
        ("demo", dump_contract(contract()).replace('"schema_version":3', '"schema_version":4')),
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
