"""The bytes of requests, compared with those of Triton's own client; and what is kept to write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from google.protobuf.internal import encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from support.scripted import KINDS, Shell, message_of
from support.sdk_contracts import tensors
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2
from tritonclient.grpc._utils import _get_inference_request

from radserve import Priority, _codec
from radserve._codec import _form
from radserve._codec._field import delimited
from radserve._codec._flow import Infer
from radserve.contracts import Datatype, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from support.scripted import ScriptedTransport

    from radserve._codec._flow import Call

DTYPES = {one.numpy: one for one in Datatype}
LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "last axis first": np.asfortranarray,
    "backwards": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "every other one": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "as it goes": np.ascontiguousarray,
}


@st.composite
def inputs_of(draw: st.DrawFn) -> dict[str, NDArray[Any]]:
    """Arrays of any types, shapes and layouts, by name."""
    inputs = {}
    for number in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
        dtype = draw(st.sampled_from(list(DTYPES)))
        elements = st.binary(max_size=200) if dtype.hasobject else arrays_of.from_dtype(dtype, allow_nan=False)
        array = draw(arrays_of.arrays(dtype, shape, elements=elements))
        inputs[f"INPUT_{number}"] = LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](array)
    return inputs


@settings(max_examples=100)
@given(
    inputs=inputs_of(),
    version=st.integers(1, 2**31 - 1),
    request_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=150),
    priority=st.sampled_from([None, *Priority]),
    timeout_s=st.none() | st.floats(0, 86_400),
)
def test_a_request_is_what_tritons_own_client_sends(
    inputs: dict[str, NDArray[Any]], version: int, request_id: str, priority: Priority | None, timeout_s: float | None
) -> None:
    specs = tuple(TensorSpec(name=name, dtype=DTYPES[one.dtype], dims=one.shape[1:]) for name, one in inputs.items())
    described = tensors(inputs=specs, version=version)
    request = _codec.to_request(described, inputs, request_id=request_id, priority=priority, queue_timeout_s=timeout_s)
    theirs = [InferInput(spec.name, list(inputs[spec.name].shape), spec.dtype.value) for spec in specs]
    for tensor, array in zip(theirs, inputs.values(), strict=True):
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
    expected = _get_inference_request(
        model_name=described.name,
        inputs=theirs,
        model_version=str(version),
        request_id=request_id,
        outputs=[InferRequestedOutput(tensor.name) for tensor in described.outputs],
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=priority or 0,
        timeout=None if timeout_s is None else max(1, int(timeout_s * 1e6)),  # of 0, Triton takes the model's own
        parameters=None,
    )
    assert message_of(request) == expected
    assert len(request.encoded()) == request.size


@pytest.mark.parametrize("size", [0, 1, 127, 128, 2**14 - 1, 2**14, 2**21, 2**28, 2**31, 2**35])
def test_a_field_begins_as_protobuf_begins_it(size: int) -> None:
    assert delimited(7, size) == b"\x3a" + encoder._VarintBytes(size)  # type: ignore[attr-defined]


def test_what_is_kept_of_contracts_and_shapes_has_an_end() -> None:
    for version in range(1, 300):
        _form.form_of(tensors(version=version))
    form = _form.form_of(tensors())
    heads = {form.head(((1, length, 2), (1, 1))) for length in range(1, 100)}
    assert len(heads) == 99
    assert len(form._heads) <= 64
    assert len(_form._forms) <= 256


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_value_is_input_and_answer_of_a_model_without_batch_axis(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(transport: ScriptedTransport, step: Call, endpoint: str) -> Any:  # noqa: ARG001 - an outcome's arguments
        assert isinstance(step, Infer)
        asked = message_of(step.request)
        answer = service_pb2.ModelInferResponse(model_name="raw", model_version="1", id=asked.id)
        answer.outputs.add(name="X", datatype="FP32", shape=asked.inputs[0].shape)
        answer.raw_output_contents.append((2 * np.frombuffer(asked.raw_input_contents[0], "<f4")).tobytes())
        return answer

    value = TensorSpec(name="X", dtype=Datatype.FP32, dims=())
    served = tensors(inputs=(value,), outputs=(value,), max_batch_size=0)
    shell = Shell(kind, {"a": [twice, twice]}, monkeypatch, served=served)
    for number in (1.5, 2.5):
        answer = shell(shell.model.infer, {"X": np.array(number, np.float32)})
        assert answer.arrays["X"].shape == ()
        assert answer.arrays["X"] == 2 * number
