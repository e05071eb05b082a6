from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.exports import MAX_TOKENS, dense_network, image_spec, token_network, write_spec

from radserve.contracts import DECISIONS, PIXELS, PROBABILITIES, Code, Datatype, Decision, Label, TensorSpec
from radserve.errors import ConversionError
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT, TOKEN_IDS
from radserve_export.graphs.checked import Chain, new_model, signature
from radserve_export.graphs.merge import merge
from radserve_export.graphs.postprocess import postprocess_graph, postprocess_reference
from radserve_export.graphs.preprocess import preprocess_graph, preprocess_reference, take_token_ids
from radserve_export.spec import NetworkInput, Spec, load_spec

CODE = Code(value="1", scheme="99RADSERVE", meaning="x")


@pytest.fixture
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return load_spec(write_spec(tmp_path_factory.mktemp("spec"), image_spec()))


def _with(spec: Spec, **changes: object) -> Spec:
    return type(spec)(**{name: getattr(spec, name) for name in spec.__struct_fields__} | changes)


@pytest.mark.parametrize("dtype", [Datatype.UINT8, Datatype.UINT16, Datatype.INT16])
@pytest.mark.parametrize(
    "scaling",
    [
        NetworkInput(),
        NetworkInput(scale=1 / 255),
        NetworkInput(scale=0.001, mean=(1.0, -2.0, 3.0), std=(0.5, 1.0, 4.0)),
    ],
)
def test_preprocessing_scales_every_integer_of_the_wire(dtype: Datatype, scaling: NetworkInput) -> None:
    limits = np.iinfo(dtype.numpy.name)
    values = np.linspace(limits.min, limits.max, 2 * 5 * 3).astype(dtype.numpy).reshape(2, 5, 3)
    graph = preprocess_graph(TensorSpec(name=PIXELS, dtype=dtype, dims=(5, 3)), scaling)
    got = Chain([graph])({PIXELS: values})[NETWORK_INPUT]
    want = (values.astype(np.float64) * scaling.scale - np.array(scaling.mean)) / np.array(scaling.std)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(got, preprocess_reference(values, scaling))


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("kind", ["probabilities", "logits"])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.5])
def test_postprocessing_agrees_with_numpy(spec: Spec, kind: str, temperature: float, *, exclusive: bool) -> None:
    rng = np.random.default_rng(0)
    output = rng.normal(size=(50, 3)).astype(np.float32) * 5
    if kind == "probabilities":
        output = np.exp(output) / np.exp(output).sum(-1, keepdims=True) if exclusive else 1 / (1 + np.exp(-output))
    changed = _with(
        spec, network_output=kind, exclusive=exclusive, calibration=type(spec.calibration)(temperature=temperature)
    )
    got = Chain([postprocess_graph(changed)])({NETWORK_OUTPUT: output})
    want = postprocess_reference(output, changed)
    np.testing.assert_allclose(got[PROBABILITIES], want[PROBABILITIES], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(got[DECISIONS], want[DECISIONS])
    if temperature == 1 and kind == "probabilities":
        np.testing.assert_array_equal(got[PROBABILITIES], output)


def test_a_temperature_keeps_certain_probabilities_finite(spec: Spec) -> None:
    certain = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], np.float32)
    for exclusive in (True, False):
        changed = _with(spec, exclusive=exclusive, calibration=type(spec.calibration)(temperature=2.0))
        got = Chain([postprocess_graph(changed)])({NETWORK_OUTPUT: certain})[PROBABILITIES]
        assert np.isfinite(got).all()
        np.testing.assert_array_equal(got.argmax(-1), certain.argmax(-1))


@pytest.mark.parametrize(
    ("band", "p", "decision"),
    [
        (None, 0.69, Decision.NEGATIVE),
        (None, 0.7, Decision.POSITIVE),
        (None, 1.0, Decision.POSITIVE),
        ((0.6, 0.8), 0.59, Decision.NEGATIVE),
        ((0.6, 0.8), 0.6, Decision.INDETERMINATE),
        ((0.6, 0.8), 0.79, Decision.INDETERMINATE),
        ((0.6, 0.8), 0.8, Decision.POSITIVE),
        (None, float("nan"), Decision.INDETERMINATE),
    ],
)
def test_decisions_follow_threshold_and_band(
    spec: Spec, band: tuple[float, float] | None, p: float, decision: Decision
) -> None:
    single = _with(spec, exclusive=False, labels=(Label(name="x", code=CODE, threshold=0.7, indeterminate=band),))
    got = Chain([postprocess_graph(single)])({NETWORK_OUTPUT: np.array([[p]], np.float32)})
    assert got[DECISIONS].dtype == np.int8
    assert got[DECISIONS].tolist() == [[decision]]


def test_the_merged_graph_answers_as_its_parts_do(spec: Spec) -> None:
    parts = {
        "preprocess": preprocess_graph(
            TensorSpec(name=PIXELS, dtype=Datatype.UINT8, dims=(4, 3, 1)), spec.network_input
        ),
        "network": dense_network().graph,
        "postprocess": postprocess_graph(spec),
    }
    feeds = {PIXELS: np.random.default_rng(0).integers(0, 256, (5, 4, 3, 1)).astype(np.uint8)}
    merged, apart = Chain([merge(parts, "tiny_pipeline")])(feeds), Chain(list(parts.values()))(feeds)
    assert set(merged) == {PROBABILITIES, DECISIONS}
    for name, values in merged.items():
        np.testing.assert_array_equal(values, apart[name])


def test_graphs_that_do_not_fit_are_not_merged(spec: Spec) -> None:
    with pytest.raises(ConversionError, match=r"takes \['NETWORK_OUTPUT'\], but is given \['NETWORK_INPUT'\]"):
        merge(
            {
                "preprocess": preprocess_graph(
                    TensorSpec(name=PIXELS, dtype=Datatype.UINT8, dims=(3,)), NetworkInput()
                ),
                "postprocess": postprocess_graph(spec),
            },
            "wrong",
        )


def test_a_text_network_takes_int32_token_ids() -> None:
    graph = take_token_ids(token_network().graph, MAX_TOKENS)
    assert signature(graph)[0] == (TensorSpec(name=TOKEN_IDS, dtype=Datatype.INT32, dims=(MAX_TOKENS,)),)
    ids = np.array([[1, 2, 3, 0, 0, 0]], np.int32)
    np.testing.assert_allclose(Chain([graph])({TOKEN_IDS: ids})[NETWORK_OUTPUT], [[0.5]])


def _graph(node: onnx.NodeProto) -> onnx.GraphProto:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    return helper.make_graph([node], "g", tensors[:1], tensors[1:])


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("CudnnRNNV3", ["x"], ["y"], "model/gru/CudnnRNNV3"),
        helper.make_node("FusedConv", ["x"], ["y"], "model/gru/FusedConv", domain="com.microsoft"),
    ],
)
def test_an_operator_that_onnx_has_not_is_named_with_its_layer(node: onnx.NodeProto) -> None:
    with pytest.raises(ConversionError, match=rf"model/gru: .*{node.op_type}"):
        new_model(_graph(node))


def test_what_onnx_runtime_cannot_load_is_refused() -> None:
    with pytest.raises(ConversionError, match="cannot be loaded"):
        new_model(_graph(helper.make_node("MatMul", ["x", "absent"], ["y"], "m")))


def test_published_graphs_load_in_the_container() -> None:
    model = dense_network().graph
    assert model.ir_version <= 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_a_fixed_batch_has_no_signature() -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1, 2])],
        [value("y", TensorProto.FLOAT, [1, 2])],
    )
    model = new_model(graph)
    with pytest.raises(ConversionError, match="tensor x has no free batch axis"):
        signature(model)
    assert signature(model, batched=False)[0][0].dims == (1, 2)
