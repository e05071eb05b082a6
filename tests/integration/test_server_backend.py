"""The python-based ONNX Runtime backend, in a real Triton."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from support.inference import infer, infer_together
from support.repositories import write_config, write_onnx

from radserve.errors import ServerStartError
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BATCHING_US = 300_000  # long enough for requests sent together to meet in one batch


def _write_dense(repository: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["X", "w"], ["Y"]), helper.make_node("Neg", ["X"], ["Z"])]
    inputs, outputs = (("X", "FP32", (4,)),), (("Y", "FP32", (3,)), ("Z", "FP32", (4,)))
    initializers = [onnx.numpy_helper.from_array(weights, "w")]
    write_onnx(repository / "dense" / "1" / "model.onnx", nodes, inputs, outputs, initializers)
    write_config(repository / "dense", inputs, outputs, delay_us=_BATCHING_US)


def _write_free_width(repository: Path) -> None:
    inputs, outputs = (("X", "FP32", (-1,)),), (("Y", "FP32", (-1,)),)
    node = helper.make_node("Neg", ["X"], ["Y"])
    write_onnx(repository / "free_width" / "1" / "model.onnx", [node], inputs, outputs)
    write_config(repository / "free_width", inputs, outputs, delay_us=_BATCHING_US)
    # Triton batches requests of unequal shape only when told to.
    config = repository / "free_width" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "X"', 'name: "X" allow_ragged_batch: true'))


def _write_lookup(repository: Path) -> None:
    """Fails on an index that is not in its table of 4."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [0, 10, 20, 30])
    inputs, outputs = (("INDEX", "INT32", (1,)),), (("VALUE", "FP32", (1,)),)
    node = helper.make_node("Gather", ["table", "INDEX"], ["VALUE"])
    write_onnx(repository / "lookup" / "1" / "model.onnx", [node], inputs, outputs, [table])
    write_config(repository / "lookup", inputs, outputs, delay_us=_BATCHING_US)


def _write_unbatched(repository: Path) -> None:
    inputs, outputs = (("X", "FP32", (2, -1)),), (("Y", "FP32", (-1, 2)),)
    node = helper.make_node("Transpose", ["X"], ["Y"])
    write_onnx(repository / "unbatched" / "1" / "model.onnx", [node], inputs, outputs, batched=False)
    write_config(repository / "unbatched", inputs, outputs, max_batch_size=0)


def _write_text(repository: Path) -> None:
    inputs, outputs = (("TEXT", "STRING", (1,)),), (("SAME", "STRING", (1,)),)
    node = helper.make_node("Identity", ["TEXT"], ["SAME"])
    write_onnx(repository / "text" / "1" / "model.onnx", [node], inputs, outputs)
    write_config(repository / "text", inputs, outputs, delay_us=_BATCHING_US)


def _write_same(repository: Path, kind: str) -> None:
    """Answers what it is sent: whoever sees another's data, sees it."""
    inputs, outputs = (("X", kind, (64,)),), (("Y", kind, (64,)),)
    node = helper.make_node("Identity", ["X"], ["Y"])
    name = f"same_{kind.lower()}"
    write_onnx(repository / name / "1" / "model.onnx", [node], inputs, outputs)
    write_config(repository / name, inputs, outputs, max_batch_size=32, instances=2)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[triton.InferenceServerClient]:
    repository = tmp_path_factory.mktemp("backend")
    for write in (_write_dense, _write_free_width, _write_lookup, _write_unbatched, _write_text):
        write(repository)
    for kind in ("FP32", "INT32", "UINT8", "STRING"):
        _write_same(repository, kind)
    with (
        EmbeddedServer(repository, verify=False, supervise=False) as server,
        triton.InferenceServerClient(server.grpc_url) as connected,
    ):
        yield connected


def _batches(client: triton.InferenceServerClient, model: str) -> int:
    """How many were run, but for one that may just have been answered and not been counted."""
    (statistics,) = client.get_inference_statistics(model).model_stats
    count: int = statistics.execution_count
    return count


def test_a_batch_answers_as_its_requests_alone(client: triton.InferenceServerClient) -> None:
    generator = np.random.default_rng(1)
    requests = [{"X": generator.normal(size=(rows, 4)).astype(np.float32)} for rows in (1, 2, 1, 3, 1)]
    alone = [infer(client, "dense", one) for one in requests]
    batches = _batches(client, "dense")
    together = infer_together(client, "dense", requests)
    assert _batches(client, "dense") - batches < len(requests)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, dict)
        for name in ("Y", "Z"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-6)


def test_requests_of_unequal_shape_in_one_batch_are_all_answered(client: triton.InferenceServerClient) -> None:
    requests = [{"X": np.full((1, width), width, np.float32)} for width in (2, 3, 2, 5, 3)]
    batches = _batches(client, "free_width")
    answers = infer_together(client, "free_width", requests)
    assert _batches(client, "free_width") - batches < len(requests)
    for request, answer in zip(requests, answers, strict=True):
        assert isinstance(answer, dict)
        np.testing.assert_array_equal(answer["Y"], -request["X"])


def test_a_request_that_fails_leaves_its_neighbours_unharmed(client: triton.InferenceServerClient) -> None:
    requests = [{"INDEX": np.array([[index]], np.int32)} for index in (1, 99, 2, 3)]
    batches = _batches(client, "lookup")
    answers = infer_together(client, "lookup", requests)
    assert _batches(client, "lookup") - batches < len(requests)
    values = [answer if isinstance(answer, Exception) else answer["VALUE"].item() for answer in answers]
    assert isinstance(values[1], triton.InferenceServerException)
    assert values[1].status() == "StatusCode.INVALID_ARGUMENT"
    assert [values[0], *values[2:]] == [10, 20, 30]


def test_a_single_request_that_fails_is_an_error_and_the_next_is_answered(
    client: triton.InferenceServerClient,
) -> None:
    with pytest.raises(triton.InferenceServerException, match="indices element out of data bounds"):
        infer(client, "lookup", {"INDEX": np.array([[99]], np.int32)})
    assert infer(client, "lookup", {"INDEX": np.array([[1]], np.int32)})["VALUE"].item() == 10


@pytest.mark.parametrize("wanted", [["Y"], ["Z"], ["Z", "Y"]])
def test_only_the_requested_outputs_are_sent(client: triton.InferenceServerClient, wanted: list[str]) -> None:
    answer = infer(client, "dense", {"X": np.ones((1, 4), np.float32)}, wanted)
    assert sorted(answer) == sorted(wanted)


def test_a_model_without_batch_axis_is_run_request_by_request(client: triton.InferenceServerClient) -> None:
    requests = [{"X": np.arange(2 * width, dtype=np.float32).reshape(2, width)} for width in (1, 2, 2, 3)]
    for request, answer in zip(requests, infer_together(client, "unbatched", requests), strict=True):
        assert isinstance(answer, dict)
        np.testing.assert_array_equal(answer["Y"], request["X"].T)


@pytest.mark.parametrize("text", ["no pneumothorax", "未见气胸", "", "a\0b"])
def test_text_comes_back_as_it_was_sent(client: triton.InferenceServerClient, text: str) -> None:
    sent = np.array([[text.encode()]], object)
    assert infer(client, "text", {"TEXT": sent})["SAME"][0, 0] == text.encode()


def test_text_that_is_not_utf8_fails_alone(client: triton.InferenceServerClient) -> None:
    requests = [{"TEXT": np.array([[text]], object)} for text in (b"one", b"\xff\xfe", b"three")]
    first, second, third = infer_together(client, "text", requests)
    assert isinstance(second, triton.InferenceServerException)
    assert "TEXT is not UTF-8" in second.message()
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    assert third["SAME"][0, 0] == b"three"


@pytest.mark.parametrize("kind", ["fp32", "int32", "uint8", "string"])
def test_no_answer_holds_another_requests_data(kind: str, client: triton.InferenceServerClient) -> None:
    generator = np.random.default_rng(2)
    requests = []
    for rows in generator.integers(1, 9, 400):
        numbers = generator.integers(0, 2**31 - 1, (rows, 64))
        sent = numbers.astype({"fp32": np.float32, "int32": np.int32, "uint8": np.uint8, "string": np.int64}[kind])
        requests.append({"X": sent.astype(str).astype(object) if kind == "string" else sent})
    batches = _batches(client, f"same_{kind}")
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda one: infer(client, f"same_{kind}", one)["Y"], requests))
    assert _batches(client, f"same_{kind}") - batches < len(requests)
    for request, answer in zip(requests, answers, strict=True):
        expected = request["X"].astype("S") if kind == "string" else request["X"]
        np.testing.assert_array_equal(answer.astype(expected.dtype), expected)


def _replace(old: str, new: str) -> object:
    def change(model: Path) -> None:
        config = model / "config.pbtxt"
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    return change


def _external_data(location: str) -> object:
    def change(model: Path) -> None:
        (model / "secret.bin").write_bytes(np.zeros(1, np.float32).tobytes())
        weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        weights.external_data.add(key="location", value=location.format(model=model))
        path = model / "1" / "model.onnx"
        graph = onnx.load(path)
        graph.graph.initializer.append(weights)
        graph.graph.node[0].CopyFrom(helper.make_node("Add", ["X", "w"], ["Y"]))
        path.write_bytes(graph.SerializeToString())
        (model / "1" / "link.bin").symlink_to(model / "secret.bin")

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_replace('name: "X"', 'name: "x"'), "input x is not in the graph, which has X"),
        (_replace('name: "Y"', 'name: "y"'), "output y is not in the graph, which has Y"),
        (_replace("dims: [ 5 ]", "dims: [ 6 ]"), r"input X has shape \[-1, 6\] in the configuration"),
        (_replace("dims: [ 5 ]", "dims: [ 5, 1 ]"), r"input X has shape \[-1, 5, 1\] in the configuration"),
        (_replace("TYPE_FP32", "TYPE_FP16"), r"input X is TYPE_FP16 in the configuration and tensor\(float\)"),
        (_replace('string_value: "1"', 'string_value: "two"'), "intra_op_thread_count is 'two'"),
        (_replace("instance_group", 'default_model_filename: "other.onnx"\ninstance_group'), "other.onnx is missing"),
        (
            _replace("instance_group", 'default_model_filename: "../x.onnx"\ninstance_group'),
            "leaves the version",
        ),
        (_external_data("../secret.bin"), "escapes model directory"),
        (_external_data("{model}/secret.bin"), "Absolute path not allowed"),
        (_external_data("link.bin"), "escapes model directory"),
    ],
)
def test_a_model_that_contradicts_its_configuration_is_refused_with_the_reason(
    change: object, reason: str, tmp_path: Path
) -> None:
    assert callable(change)
    model = tmp_path / "repository" / "negative"
    inputs, outputs = (("X", "FP32", (5,)),), (("Y", "FP32", (5,)),)
    write_onnx(model / "1" / "model.onnx", [helper.make_node("Neg", ["X"], ["Y"])], inputs, outputs)
    write_config(model, inputs, outputs)
    change(model)
    with pytest.raises(ServerStartError, match=reason), EmbeddedServer(tmp_path / "repository", verify=False):
        pass


def test_a_graph_with_a_fixed_batch_axis_cannot_be_batched(tmp_path: Path) -> None:
    model = tmp_path / "repository" / "fixed"
    node = helper.make_node("Neg", ["X"], ["Y"])
    write_onnx(model / "1" / "model.onnx", [node], [("X", "FP32", (1, 5))], [("Y", "FP32", (1, 5))], batched=False)
    write_config(model, [("X", "FP32", (5,))], [("Y", "FP32", (5,))])
    with (
        pytest.raises(ServerStartError, match="max_batch_size must be 0"),
        EmbeddedServer(tmp_path / "repository", verify=False),
    ):
        pass


@pytest.mark.parametrize("threads", [None, 3])
def test_the_log_says_how_many_threads_each_instance_got(threads: int | None, tmp_path: Path) -> None:
    _write_same(tmp_path, "FP32")
    lines: list[str] = []
    with EmbeddedServer(tmp_path, verify=False, supervise=False, threads=threads, on_log=lines.append) as server:
        each = threads or max(1, server.cores // 2)
    assert any(f"same_fp32: 2 instances, intra_op_num_threads {each} each" in line for line in lines)
