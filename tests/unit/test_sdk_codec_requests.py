"""Sources to requests, without a server."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pydicom
import pytest
from support.datasets import TEST_FILES
from support.scripted import message_of
from support.sdk_contracts import IMAGE, TEXT, WAVEFORM, arrays, contract, tensors
from tritonclient.grpc import service_pb2

from radserve import Priority, _codec
from radserve._codec._wire import packed, to_joint_request
from radserve.contracts import EveryImage
from radserve.errors import (
    DecodeError,
    InputError,
    MissingAttributeError,
    OutOfScopeError,
    RadserveError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from radserve.contracts import ImageInput, TextInput, WaveformInput


@pytest.mark.parametrize(
    ("described", "source", "name", "shape", "dtype"),
    [
        (IMAGE, TEST_FILES / "CT_small.dcm", "PIXELS", (1, 4, 4, 1), np.uint8),
        (IMAGE, str(TEST_FILES / "CT_small.dcm"), "PIXELS", (1, 4, 4, 1), np.uint8),
        (IMAGE, (TEST_FILES / "CT_small.dcm").read_bytes(), "PIXELS", (1, 4, 4, 1), np.uint8),
        (IMAGE, np.arange(63, dtype=np.int16).reshape(9, 7), "PIXELS", (1, 4, 4, 1), np.uint8),
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
        (TEXT, b"\xff", InputError),
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


@pytest.mark.parametrize("described", [IMAGE, WAVEFORM])
def test_a_folder_is_many_files(described: ImageInput | WaveformInput, tmp_path: Path) -> None:
    for folder in (tmp_path, str(tmp_path)):
        with pytest.raises(InputError, match=r"predict_many\(sorted\(Path\(folder\)\.iterdir\(\)\)\)"):
            _codec.prepare(contract(described), folder)


@pytest.mark.parametrize(
    ("described", "told"),
    [
        (IMAGE, r"predict_many\(\)"),
        (WAVEFORM, r"predict_many\(\)"),
        (msgspec.structs.replace(IMAGE, study=EveryImage()), r"numpy\.stack"),
    ],
)
def test_a_list_of_arrays_is_refused_with_what_to_give_instead(
    described: ImageInput | WaveformInput, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        _codec.prepare(contract(described), [np.zeros((4, 4)), np.zeros((4, 4))])  # type: ignore[list-item]


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
    request = message_of(
        _codec.to_request(contract(TEXT), prepared.inputs, request_id="r", priority=Priority.STAT, queue_timeout_s=0.25)
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


def test_a_request_without_options_carries_no_parameters() -> None:
    prepared = _codec.prepare(contract(), np.zeros((4, 4, 1), np.uint8))
    request = message_of(_codec.to_request(contract(), prepared.inputs, request_id="r"))
    assert not request.parameters


def test_a_priority_that_is_none_of_the_enum_is_refused() -> None:
    prepared = _codec.prepare(contract(TEXT), "text")
    with pytest.raises(InputError, match=r"Priority\.STAT"):
        _codec.to_request(contract(TEXT), prepared.inputs, request_id="r", priority="STAT")  # type: ignore[arg-type]


@pytest.mark.parametrize("priority", [Priority.STAT, Priority.URGENT])
def test_urgency_is_refused_where_the_server_takes_all_requests_alike(priority: Priority) -> None:
    alike = msgspec.structs.replace(contract(TEXT), priorities=False)
    prepared = _codec.prepare(alike, "text")
    with pytest.raises(InputError, match="takes all requests alike: leave priority out"):
        _codec.to_request(alike, prepared.inputs, request_id="r", priority=priority)


@pytest.mark.parametrize("priority", [None, Priority.ROUTINE])
def test_no_priority_is_sent_where_the_server_takes_all_requests_alike(priority: Priority | None) -> None:
    alike = msgspec.structs.replace(contract(TEXT), priorities=False)
    request = _codec.to_request(alike, _codec.prepare(alike, "text").inputs, request_id="r", priority=priority)
    assert not message_of(request).parameters


@pytest.mark.parametrize("rows", [1, 3])
def test_a_prepared_array_is_copied_once_on_its_way_into_the_message(rows: int) -> None:
    size = 2**22
    pixels = np.arange(size, dtype=np.uint8).reshape(2048, 2048, 1)
    described = contract(msgspec.structs.replace(IMAGE, rows=2048, columns=2048))
    tracemalloc.start()
    try:
        inputs = _codec.prepare(described, pixels).inputs
        items = [[packed(inputs["PIXELS"])]] * rows
        request = to_joint_request(described, items, ((rows, *pixels.shape),), request_id="r")
        before = tracemalloc.get_traced_memory()[1]
        message = request.encoded()
        after = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert before < size // 8  # nothing was copied until here
    assert rows * size < after < rows * size + size // 8
    assert len(message) == request.size
    assert service_pb2.ModelInferRequest.FromString(message).raw_input_contents[0] == pixels.tobytes() * rows
