"""The parts of an evidence model that need no Keras."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.exports import dense_network, image_spec, write_spec

from radserve.contracts import EVIDENCE
from radserve.errors import ConversionError
from radserve_export.evaluate._classification import score
from radserve_export.evidence import evidence_model
from radserve_export.graphs import BATCH, NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import new_model
from radserve_export.graphs.evidence import describe_evidence, evidence_of
from radserve_export.graphs.merge import merge
from radserve_export.spec import load_spec
from radserve_export.synthetic import Sample

if TYPE_CHECKING:
    from pathlib import Path

    from radserve import Classification
    from radserve_export.spec import Spec


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


def test_a_map_goes_past_the_graphs_behind() -> None:
    parts = {"network": graph("A", "B", EVIDENCE), "postprocess": graph("B", "C")}
    assert {output.name for output in merge(parts, "both", past=(EVIDENCE,)).graph.output} == {"C", EVIDENCE}
    with pytest.raises(ConversionError, match="is given"):
        merge(parts, "both")


def test_a_network_without_a_map_has_no_second_model(spec: Spec) -> None:
    with pytest.raises(ConversionError, match="no evidence map"):
        evidence_model(spec, dense_network())


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
