"""The parts of an evidence model that need no Keras."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.exports import COLUMNS, ROWS, dense_network, export_network, image_spec, write_spec
from support.networks import evidence_network

from radserve import Classification, _codec
from radserve.contracts import CONTRACT_PARAMETER, EVIDENCE, PROBABILITIES, parse_contract
from radserve.errors import ConversionError, ParityError, SpecError
from radserve_export.evaluate._classification import score
from radserve_export.evidence import public_models
from radserve_export.graphs import BATCH, NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain, new_model
from radserve_export.graphs.evidence import describe_evidence, evidence_of
from radserve_export.spec import load_spec
from radserve_export.synthetic import Sample
from radserve_export.triton_config import parse_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export import pipeline
    from radserve_export.network import Network
    from radserve_export.spec import Spec

    Export = Callable[..., pipeline.Exported]


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return load_spec(write_spec(tmp_path, image_spec(evidence=True)))


def graph(taken: str, *given: str) -> onnx.ModelProto:
    """Hands what it takes on, under each name."""
    shape: list[int | str | None] = [BATCH, 5, 3]
    return new_model(
        helper.make_graph(
            [helper.make_node("Identity", [taken], [name], name) for name in given],
            "graph",
            [helper.make_tensor_value_info(taken, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in given],
        )
    )


def test_a_graph_says_where_its_map_comes_from() -> None:
    model = graph(NETWORK_INPUT, NETWORK_OUTPUT, EVIDENCE)
    describe_evidence(model, "block/last", (1.0, 2.0, 3.0, 4.5))
    found = evidence_of(model)
    assert found is not None
    assert (found.rows, found.columns, found.layer, found.region) == (5, 3, "block/last", (1.0, 2.0, 3.0, 4.5))


def test_a_graph_without_a_map_says_nothing_of_one() -> None:
    assert evidence_of(graph(NETWORK_INPUT, NETWORK_OUTPUT)) is None


@pytest.mark.parametrize("told", [None, "[]", '{"layer": 7}', "no json", '{"layer": "a", "region": [4, 0, 1, 9]}'])
def test_what_a_graph_says_of_its_map_is_not_just_believed(told: str | None) -> None:
    model = graph(NETWORK_INPUT, EVIDENCE)
    if told is not None:
        model.metadata_props.add(key="radserve.evidence", value=told)
    with pytest.raises(ConversionError, match="evidence map"):
        evidence_of(model)


def test_a_network_without_a_map_has_no_second_model(spec: Spec) -> None:
    with pytest.raises(ConversionError, match="no evidence map"):
        public_models(spec, dense_network())


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Export a network with evidence maps to ``tmp_path/models``."""

    def run(network: Network, **changes: Any) -> pipeline.Exported:
        return export_network(tmp_path, network, image_spec(network_output="logits", evidence=True) | changes)

    return run


def served(models: Path, name: str, image: NDArray[np.float32]) -> tuple[Classification, NDArray[Any]]:
    """What the SDK makes of the published graphs' answer, and the answer's probabilities."""
    config = parse_config((models / name / "config.pbtxt").read_bytes())
    contract = parse_contract(config.parameters[CONTRACT_PARAMETER].string_value)
    steps = [models / step.model_name / str(step.model_version) for step in config.ensemble_scheduling.step]
    prepared = _codec.prepare(contract, image)
    arrays = Chain([onnx.load(step / "model.onnx") for step in steps])(prepared.inputs)
    answer = _codec.Answer(arrays={tensor.name: arrays[tensor.name] for tensor in contract.outputs}, request_id="r")
    result = _codec.to_result(contract, prepared, answer)
    assert isinstance(result, Classification)
    return result, arrays[PROBABILITIES][0]


def test_maps_that_show_nothing_are_not_published(tmp_path: Path, export: Export) -> None:
    """Comparing them would prove nothing."""
    with pytest.raises(SpecError, match="no map shows anything"):
        export(evidence_network(strength=(-3, -2, -1)))
    assert not (tmp_path / "models").exists()


def test_the_gate_compares_the_maps_of_all_labels(tmp_path: Path, export: Export) -> None:
    """Of a label that is never on top, too."""
    network = evidence_network(strength=(3, 2, 1e-3))
    part, other = network.parts["evidence"], evidence_network(strength=(3, 2, -1e-3)).parts["evidence"].graph
    wrong = onnx.ModelProto()
    wrong.CopyFrom(part.graph)
    (back,) = [node for node in wrong.graph.node if node.name == "back"]
    (dense,) = [weight for weight in other.graph.initializer if weight.name == "dense"]
    wrong.graph.initializer.add().CopyFrom(dense)
    wrong.graph.initializer[-1].name = back.input[0] = "wrong"
    with pytest.raises(ParityError, match="network: EVIDENCE differs"):
        export(replace(network, parts={"evidence": replace(part, graph=wrong)}))
    assert not (tmp_path / "models").exists()


# The second label's logit is the largest by far, and in single precision its probability is not.
SATURATED = {"exclusive": False, "network_input": {"mean": [128]}, "calibration": {"temperature": 0.5}}
BRIGHT, DARK = (0, 1), (3, 2)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("strength", [(3, 9, 0), (9, 3, 0)])
def test_of_two_saturated_labels_the_map_explains_the_one_on_top(
    tmp_path: Path, export: Export, strength: tuple[float, float, float], *, fuse: bool
) -> None:
    window = {"kind": "fixed", "center": 128, "width": 256}
    export(
        evidence_network(strength=strength),
        input=image_spec()["input"] | {"window": window},
        serving={"fuse": fuse},
        **SATURATED,
    )
    image = np.full((ROWS, COLUMNS), 128, np.float32)
    image[BRIGHT], image[DARK] = 255, 0
    result, probabilities = served(tmp_path / "models", "tiny_evidence", image)
    assert probabilities.tolist() == [1, 1, 0.5]
    assert result.evidence is not None
    assert result.evidence.label == result.top.label == "a"
    assert result.evidence.values.argmax() == np.ravel_multi_index(BRIGHT, image.shape)
    plain, _ = served(tmp_path / "models", "tiny", image)
    assert plain.top == result.top


def test_the_tolerance_of_a_map_is_its_own_unless_the_spec_names_one(tmp_path: Path, spec: Spec) -> None:
    assert (spec.parity.of(EVIDENCE).atol, spec.parity.of(NETWORK_OUTPUT).atol) == (1e-3, 1e-5)
    named = image_spec(evidence=True, parity={"outputs": {"EVIDENCE": {"atol": 1e-4}}})
    assert load_spec(write_spec(tmp_path, named)).parity.of(EVIDENCE).atol == 1e-4


def answer(label: str, place: tuple[int, int] | None) -> Classification:
    values = np.zeros((4, 4), np.float32)
    values[place or (0, 0)] = 1
    evidence = None if place is None else SimpleNamespace(values=values)
    found: Any = SimpleNamespace(top=SimpleNamespace(label=label), evidence=evidence)
    return cast("Classification", found)


def test_maps_count_where_a_true_positive_has_a_place(spec: Spec) -> None:
    truth = np.zeros((4, 4), np.uint8)
    truth[1, 2] = 2
    samples = [Sample(source=b"", label="b", truth=truth)] * 4 + [Sample(source=b"", label="a")]
    results = [answer("b", (1, 2)), answer("b", (1, 2)), answer("b", (2, 1)), answer("c", (1, 2)), answer("a", (0, 0))]
    assert score(spec, samples, results)["evidence"] == {"n": 3, "in_lesion": pytest.approx(2 / 3)}
    assert "evidence" not in score(spec, samples, [answer("b", None)] * 5)
