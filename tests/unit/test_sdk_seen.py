"""Answers that are like one before, read without a parser: as a parser reads them, or not so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.sdk_contracts import contract, tensors
from tritonclient.grpc import service_pb2

from radserve import _codec
from radserve._codec._form import form_of
from radserve._codec._seen import Seen
from radserve.contracts import Datatype, TensorSpec
from radserve.errors import InferenceFailedError

if TYPE_CHECKING:
    from radserve.contracts import Contract


def response(first: float = 0.2) -> service_pb2.ModelInferResponse:
    made = service_pb2.ModelInferResponse(model_name="demo", model_version="3", id="r")
    made.outputs.add(name="PROBABILITIES", datatype="FP32", shape=(1, 2))
    made.outputs.add(name="DECISIONS", datatype="INT8", shape=(1, 2))
    made.raw_output_contents.extend([np.array([first, 0.9], "<f4").tobytes(), b"\0\2"])
    return made


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2, len(content))) + content


def _in_pieces(first: float, request_id: str) -> tuple[bytes, bytes, bytes]:
    """An answer up to its id, from there to its contents, and these."""
    whole = response(first)
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
