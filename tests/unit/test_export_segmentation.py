"""From a segmentation network to a label map, and what must not pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.sr.codedict import Collection
from support.exports import label, write_spec
from support.outlines import COLUMNS, ROWS
from support.segmenters import pixel_network, segmentation_spec

from radserve.contracts import LABEL_MAP, Task
from radserve.errors import ExportError, ParityError, SpecError
from radserve_export.ensemble import build_steps
from radserve_export.evaluate._segmentation import score
from radserve_export.graphs import NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain
from radserve_export.graphs.label_map import BROKEN, label_map_graph, label_map_reference
from radserve_export.parity import check_parity
from radserve_export.reference import Reference, check_fit, parity_stages
from radserve_export.spec import load_spec
from radserve_export.synthetic import Sample
from radserve_export.tasks import rules_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_export.network import Network
    from radserve_export.spec import Spec

SPECS = Path(__file__).parents[2] / "export" / "specs"
ONE_LABEL: dict[str, Any] = {"exclusive": None, "labels": [label("organ", threshold=0.8)]}


def load(folder: Path, **changes: Any) -> Spec:
    return load_spec(write_spec(folder, segmentation_spec(**changes)))


def outputs(classes: int) -> NDArray[np.float32]:
    values = np.random.default_rng(0).normal(size=(3, ROWS, COLUMNS, classes)).astype(np.float32) * 3
    values[:, 0] = 1  # all classes are equal
    return values


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_the_largest_of_exclusive_classes_counts_and_the_first_of_equal_ones(tmp_path: Path, kind: str) -> None:
    spec = load(tmp_path, network_output=kind)
    got = Chain([label_map_graph(spec)])({NETWORK_OUTPUT: outputs(3)})[LABEL_MAP]
    assert got.dtype == np.uint8
    assert got.shape == (3, ROWS, COLUMNS)
    assert not got[:, 0].any()
    assert set(got.ravel()) == {0, 1, 2}
    np.testing.assert_array_equal(got, outputs(3).argmax(axis=-1))
    np.testing.assert_array_equal(got, label_map_reference(outputs(3), spec))


@pytest.mark.parametrize(("kind", "edge"), [("probabilities", 0.8), ("logits", np.log(4))])
def test_a_single_label_counts_from_its_threshold_on(tmp_path: Path, kind: str, edge: float) -> None:
    spec = load(tmp_path, network_output=kind, **ONE_LABEL)
    values = outputs(1)
    exact = np.float32(edge)
    values[0, 0, :3, 0] = np.nextafter(exact, np.float32(-9)), exact, np.nextafter(exact, np.float32(9))
    got = Chain([label_map_graph(spec)])({NETWORK_OUTPUT: values})[LABEL_MAP]
    assert got[0, 0, :3].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(got, values[..., 0] >= exact)
    np.testing.assert_array_equal(got, label_map_reference(values, spec))


def test_a_single_label_may_have_a_background_class(tmp_path: Path) -> None:
    spec = load(tmp_path, labels=[label("organ")])
    np.testing.assert_array_equal(
        Chain([label_map_graph(spec)])({NETWORK_OUTPUT: outputs(2)})[LABEL_MAP], outputs(2).argmax(axis=-1)
    )


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("classes", [1, 3])
def test_the_served_graphs_give_one_byte_a_pixel_and_pass_the_gate(tmp_path: Path, classes: int, *, fuse: bool) -> None:
    spec = load(tmp_path, serving={"fuse": fuse}, **(ONE_LABEL if classes == 1 else {}))
    network = pixel_network(classes)
    steps = build_steps(spec, network, check_fit(spec, network, None), None)
    assert [step.name for step in steps] == (
        ["outlines_pipeline"] if fuse else ["outlines_preprocess", "outlines_network", "outlines_postprocess"]
    )
    (given,) = steps[-1].outputs
    assert (given.name, given.dtype.value, given.dims) == (LABEL_MAP, "UINT8", (ROWS, COLUMNS))
    reference = Reference(spec, network, None)
    report = check_parity(parity_stages(spec, network, steps, reference, None), spec=spec)
    assert report["outputs"][f"pipeline/{LABEL_MAP}"]["argmax_agreement"] == 1


@dataclass
class Case:
    """Three pixels of Keras' probabilities, and what the graph made of them."""

    labels: list[int]
    is_wrong: bool


@pytest.mark.parametrize(
    "case",
    [
        Case([2, 1, 0], is_wrong=False),
        Case([2, 0, 0], is_wrong=False),  # equal within the tolerance
        Case([2, 2, 0], is_wrong=True),
        Case([1, 1, 0], is_wrong=True),
        Case([2, 1, 3], is_wrong=True),  # no such label
    ],
)
def test_another_label_passes_only_where_keras_holds_both_for_equal(tmp_path: Path, case: Case) -> None:
    spec = load(tmp_path)
    values = np.array([[[[0.1, 0.2, 0.7], [0.45 - 1e-6, 0.45, 0.1], [0.9, 0.1, 0.0]]]], np.float32)
    rules = rules_of(spec.task)
    want = rules.finish({NETWORK_OUTPUT: values}, spec)
    got = {LABEL_MAP: np.array([[case.labels]], np.uint8)}
    assert rules.own_rules[LABEL_MAP](got, want, spec).tolist() == [case.is_wrong]


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_pixel_that_is_no_number_is_never_background(tmp_path: Path, *, exclusive: bool) -> None:
    labels = [label(name) for name in ("a", "b")[: 2 if exclusive else 1]]
    spec = load_spec(write_spec(tmp_path, segmentation_spec(exclusive=exclusive, labels=labels)))
    values = np.zeros((1, ROWS, COLUMNS, 3 if exclusive else 1), np.float32)
    values[0, 1, 1, 0] = np.nan
    (found,) = Chain([label_map_graph(spec)])({NETWORK_OUTPUT: values})[LABEL_MAP]
    assert found[1, 1] == BROKEN
    assert (found == BROKEN).sum() == 1


def test_a_nan_of_keras_never_passes(tmp_path: Path) -> None:
    spec = load(tmp_path)
    values = np.full((1, 1, 1, 3), np.nan, np.float32)
    rules = rules_of(spec.task)
    want = rules.finish({NETWORK_OUTPUT: values}, spec)
    assert rules.own_rules[LABEL_MAP]({LABEL_MAP: want[LABEL_MAP]}, want, spec).all()


def test_a_conversion_that_swaps_two_labels_is_caught(tmp_path: Path) -> None:
    spec = load(tmp_path)
    network = pixel_network()
    honest = network.reference

    def swapped(feeds: Any) -> Any:
        return {NETWORK_OUTPUT: honest(feeds)[NETWORK_OUTPUT][..., [0, 2, 1]]}

    steps = build_steps(spec, network, check_fit(spec, network, None), None)
    lying = replace(network, reference=swapped)
    stages = parity_stages(spec, lying, steps, Reference(spec, lying, None), None)
    with pytest.raises(ParityError) as caught:
        check_parity(stages[1:], spec=spec)
    assert LABEL_MAP in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "network", "told"),
    [
        (
            {},
            pixel_network(1),
            r"gives \[24, 32, 1\] values, .* for \[24, 32, 3\]: one for the background",
        ),
        (ONE_LABEL, pixel_network(3), r"gives \[24, 32, 3\] values, but the spec asks for \[24, 32, 1\]"),
        ({"exclusive": None}, pixel_network(), "set exclusive: true"),
        ({"labels": [label("a", threshold=0.7), label("b")]}, pixel_network(), "leave threshold out"),
        ({"labels": [label("a", indeterminate=[0.4, 0.6]), label("b")]}, pixel_network(), "leave indeterminate out"),
        ({"calibration": {"temperature": 2}}, pixel_network(), "leave it out"),
    ],
)
def test_what_a_label_map_cannot_tell_is_refused(
    tmp_path: Path, changes: dict[str, Any], network: Network, told: str
) -> None:
    spec = load(tmp_path, **changes)
    with pytest.raises(SpecError, match=told):
        check_fit(spec, network, None)


@dataclass
class Answered:
    """As much of a segmentation as is scored."""

    label_map: NDArray[np.uint8]


def test_dice_is_the_mean_over_labels_of_the_mean_over_images_that_show_them(tmp_path: Path) -> None:
    spec = load(tmp_path)
    truths = [[[1, 1, 2, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]]
    answers = [[[1, 0, 2, 0]], [[1, 1, 2, 0]], [[0, 0, 0, 0]]]
    samples = [Sample(source=b"", label="", truth=np.array(truth, np.uint8)) for truth in truths]
    found = score(spec, samples, [Answered(np.array(answer, np.uint8)) for answer in answers])  # type: ignore[misc]  # it has what is read
    assert found["n"] == 3
    assert found["n_by_label"] == [2, 2]
    assert found["dice_by_label"] == pytest.approx([(2 / 3 + 1) / 2, (1 + 0) / 2])
    assert found["dice"] == pytest.approx((5 / 6 + 1 / 2) / 2)


def test_samples_without_label_maps_are_not_scored(tmp_path: Path) -> None:
    spec = load(tmp_path)
    with pytest.raises(ExportError, match="no label maps"):
        score(spec, [Sample(source=b"", label="")], [Answered(np.zeros((1, 1), np.uint8))])  # type: ignore[list-item]  # as above


def test_every_region_of_the_reference_models_has_a_category_of_the_standard() -> None:
    categories = {
        (code.value, code.scheme_designator, code.meaning) for code in Collection("CID7150").concepts.values()
    }
    specs = [load_spec(path) for path in sorted(SPECS.glob("*.yaml"))]
    found = [label.category for spec in specs if spec.task is Task.IMAGE_SEGMENTATION for label in spec.labels]
    assert found
    for category in found:
        assert category is not None
        assert (category.value, category.scheme, category.meaning) in categories
        assert "CID 7150" in (category.source or "")
