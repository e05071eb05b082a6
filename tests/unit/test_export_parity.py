from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.exports import dense_network, image_spec, runner, write_spec

from radserve.contracts import DECISIONS, PROBABILITIES, Datatype, TensorSpec
from radserve.errors import ParityError, SpecError
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.parity import Batch, Stage, batch_sizes, check_parity, free_lengths, random_input
from radserve_export.spec import Spec, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_export.network import Arrays


@pytest.fixture
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return load_spec(write_spec(tmp_path_factory.mktemp("spec"), image_spec()))


def _images(batch: int, _length: int, rng: np.random.Generator) -> Arrays:
    return {NETWORK_INPUT: rng.standard_normal((batch, 4, 3, 1)).astype(np.float32)}


def _stage(
    exported: Callable[[Arrays], dict[str, Any]],
    reference: Callable[[Arrays], dict[str, Any]],
    outputs: tuple[str, ...] = (NETWORK_OUTPUT,),
) -> Stage:
    return Stage("network", outputs, _images, exported, reference)


def _answers(**arrays: Any) -> Callable[[Arrays], dict[str, Any]]:
    return lambda feeds: {
        name: np.repeat(np.asarray(row)[None], len(next(iter(feeds.values()))), 0) for name, row in arrays.items()
    }


def test_an_equal_network_passes_at_all_batch_sizes(spec: Spec) -> None:
    network = dense_network()
    report = check_parity([_stage(network.reference, network.reference)], spec=spec)
    assert report["batch_sizes"] == [1, 2, 7, 64]
    assert report["outputs"]["network/NETWORK_OUTPUT"] == {
        "max_abs": 0.0,
        "argmax_agreement": 1.0,
        "failures": [],
        "atol": 1e-5,
        "rtol": 1e-4,
    }


def test_a_permuted_weight_is_caught_and_located(spec: Spec) -> None:
    network = dense_network()
    wrong = onnx.ModelProto()
    wrong.CopyFrom(network.graph)
    weights = numpy_helper.to_array(wrong.graph.initializer[0])
    wrong.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights[:, [1, 0, 2]], "weights"))
    with pytest.raises(
        ParityError, match=r"^tiny does not .*network: NETWORK_OUTPUT differs by .* on a random batch of \d+, row \d+"
    ) as caught:
        check_parity([_stage(runner(wrong), network.reference)], spec=spec)
    found = caught.value.report["outputs"]["network/NETWORK_OUTPUT"]
    assert found["max_abs"] > 0.1
    assert found["argmax_agreement"] < 1


@pytest.mark.parametrize("who", ["the graph", "Keras itself"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_fail_even_where_both_have_them(spec: Spec, who: str, value: float) -> None:
    finite, broken = _answers(NETWORK_OUTPUT=[0.1, 0.9]), _answers(NETWORK_OUTPUT=[0.1, value])
    exported, reference = (broken, broken) if who == "Keras itself" else (broken, finite)
    with pytest.raises(ParityError, match=f"of {who} is NaN or infinite"):
        check_parity([_stage(exported, reference)], spec=spec)


@pytest.mark.parametrize(("off", "passes"), [(0.9e-5, True), (3e-5, False)])
def test_the_specs_tolerance_decides(spec: Spec, off: float, *, passes: bool) -> None:
    stages = [_stage(_answers(NETWORK_OUTPUT=[off]), _answers(NETWORK_OUTPUT=[0.0]))]
    if passes:
        check_parity(stages, spec=spec)
    else:
        with pytest.raises(ParityError, match="differs by 3e-05"):
            check_parity(stages, spec=spec)


def test_a_single_output_may_have_its_own_tolerance(tmp_path: Path) -> None:
    own = load_spec(write_spec(tmp_path, image_spec(parity={"outputs": {NETWORK_OUTPUT: {"atol": 0.01, "rtol": 0}}})))
    report = check_parity([_stage(_answers(NETWORK_OUTPUT=[0.009]), _answers(NETWORK_OUTPUT=[0.0]))], spec=own)
    assert report["outputs"]["network/NETWORK_OUTPUT"]["atol"] == 0.01
    off, zero = _answers(OTHER=[0.009], NETWORK_OUTPUT=[0.0]), _answers(OTHER=[0.0], NETWORK_OUTPUT=[0.0])
    with pytest.raises(ParityError, match="OTHER differs"):
        check_parity([_stage(off, zero, ("OTHER", NETWORK_OUTPUT))], spec=own)


def test_what_an_output_does_not_say_is_as_for_the_others(tmp_path: Path) -> None:
    given = {"atol": 1e-3, "rtol": 0, "outputs": {NETWORK_OUTPUT: {"atol": 1e-6}}}
    own = load_spec(write_spec(tmp_path, image_spec(parity=given)))
    with pytest.raises(ParityError, match="allowed there: 1e-06"):
        check_parity([_stage(_answers(NETWORK_OUTPUT=[100.001]), _answers(NETWORK_OUTPUT=[100.0]))], spec=own)


@pytest.mark.parametrize("name", ["PROBABILITES", DECISIONS])
def test_a_tolerance_of_what_is_not_compared_by_one_is_refused(tmp_path: Path, name: str) -> None:
    own = load_spec(write_spec(tmp_path, image_spec(parity={"outputs": {name: {"atol": 1e-6}}})))
    row = _answers(PROBABILITIES=[0.1, 0.2, 0.3], DECISIONS=[0, 0, 0])
    with pytest.raises(SpecError, match=f"parity.outputs: {name} is not compared by a tolerance: PROBABILITIES are"):
        check_parity([_stage(row, row, (PROBABILITIES, DECISIONS))], spec=own)


@pytest.mark.parametrize("who", ["Keras", "the graph"])
def test_an_output_that_one_side_does_not_give_fails(spec: Spec, who: str) -> None:
    both, one = _answers(A=[0.0], B=[0.0]), _answers(A=[0.0])
    given = (both, one) if who == "Keras" else (one, both)
    with pytest.raises(ParityError, match=f"B is not given by {who}"):
        check_parity([_stage(*given, ("A", "B"))], spec=spec)


def test_a_difference_at_one_length_alone_is_caught_and_named(spec: Spec) -> None:
    def wrong_when_long(feeds: Arrays) -> dict[str, Any]:
        (x,) = feeds.values()
        return {NETWORK_OUTPUT: np.full((len(x), 1), float(x.shape[1] > 7))}

    def sequences(batch: int, length: int, _rng: np.random.Generator) -> Arrays:
        return {NETWORK_INPUT: np.zeros((batch, length))}

    stage = Stage(
        "network",
        (NETWORK_OUTPUT,),
        sequences,
        wrong_when_long,
        lambda feeds: {NETWORK_OUTPUT: np.zeros((len(feeds[NETWORK_INPUT]), 1))},
        free_lengths([TensorSpec(name="x", dtype=Datatype.FP32, dims=(-1,))]),
    )
    with pytest.raises(ParityError, match="random batch of 1, length 64, row 0"):
        check_parity([stage], spec=spec)
    assert check_parity([stage._replace(lengths=(1, 7))], spec=spec)["lengths"] == [1, 7]


def test_real_inputs_are_compared_too(spec: Spec) -> None:
    def wrong_on_ones(feeds: Arrays) -> dict[str, Any]:
        return {NETWORK_OUTPUT: (feeds[NETWORK_INPUT] == 1).all(axis=(1, 2))}

    zeros = _answers(NETWORK_OUTPUT=[0.0])
    stage = _stage(wrong_on_ones, zeros)
    assert check_parity([stage], spec=spec)["real_inputs"] == 0
    real = Batch("batch of 2 of the files", {NETWORK_INPUT: np.ones((2, 4, 3, 1))})
    with pytest.raises(ParityError, match="on a batch of 2 of the files, row 0") as caught:
        check_parity([stage._replace(real=(real,))], spec=spec)
    assert caught.value.report["real_inputs"] == 2


def test_another_shape_fails(spec: Spec) -> None:
    stages = [_stage(_answers(NETWORK_OUTPUT=[1.0, 2.0]), _answers(NETWORK_OUTPUT=[1.0]))]
    with pytest.raises(ParityError, match=r"has shape \(1, 2\) instead of \(1, 1\)"):
        check_parity(stages, spec=spec)


@pytest.mark.parametrize(("p", "passes"), [(0.500004, True), (0.6, False)])
def test_a_decision_may_differ_only_on_the_threshold(spec: Spec, p: float, *, passes: bool) -> None:
    row = np.array([p, 0.1, 0.1], np.float32)
    stages = [
        _stage(
            _answers(PROBABILITIES=row, DECISIONS=np.array([0, 0, 0], np.int8)),
            _answers(PROBABILITIES=row, DECISIONS=np.array([2, 0, 0], np.int8)),
            (PROBABILITIES, DECISIONS),
        )
    ]
    if passes:
        check_parity(stages, spec=spec)
    else:
        with pytest.raises(ParityError, match=r"DECISIONS differs on a random batch of 1, row 0"):
            check_parity(stages, spec=spec)


@pytest.mark.parametrize(("largest", "sizes"), [(0, (1, 2, 7)), (1, (1,)), (4, (1, 2, 4)), (64, (1, 2, 7, 64))])
def test_batch_sizes_stay_within_the_largest(largest: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(largest) == sizes


@pytest.mark.parametrize("dtype", [Datatype.UINT8, Datatype.UINT16, Datatype.INT16])
def test_random_wire_values_span_the_whole_range(dtype: Datatype) -> None:
    wanted = TensorSpec(name="x", dtype=dtype, dims=(200, 200))
    values = random_input(wanted, 4, np.random.default_rng(0), vocabulary=None, limits=None)
    limits = np.iinfo(dtype.numpy.name)
    span = limits.max - limits.min
    assert values.dtype == dtype.numpy
    assert int(values.min()) <= limits.min + span * 0.01
    assert int(values.max()) >= limits.max - span * 0.01


def test_random_token_ids_stay_in_the_vocabulary_and_are_right_padded() -> None:
    wanted = TensorSpec(name="x", dtype=Datatype.INT32, dims=(30,))
    ids = random_input(wanted, 40, np.random.default_rng(0), vocabulary=9, limits=None)
    assert set(np.unique(ids)) == set(range(9))
    assert not ids[0].any(), "a fully padded row is among them"
    lengths = (ids != 0).sum(1)
    for row, length in zip(ids, lengths, strict=True):
        assert row[:length].all()
    assert len(set(lengths)) > 10


def test_an_input_range_bounds_the_random_values() -> None:
    wanted = TensorSpec(name="x", dtype=Datatype.INT16, dims=(100,))
    values = random_input(wanted, 10, np.random.default_rng(0), vocabulary=None, limits=(-2, 2))
    assert set(np.unique(values)) == {-2, -1, 0, 1, 2}


def _noted(exported: Callable[[Arrays], dict[str, Any]], spec: Spec, **stage: Any) -> list[str]:
    notes = check_parity([_stage(exported, exported)._replace(**stage)], spec=spec)["notes"]
    assert isinstance(notes, list)
    return notes


@pytest.mark.parametrize(("wobble", "is_told"), [(0.0, True), (5e-6, True), (1e-3, False)])
def test_outputs_that_vary_less_than_the_tolerance_are_told(spec: Spec, wobble: float, *, is_told: bool) -> None:
    def answer(feeds: Arrays) -> dict[str, Any]:
        bright = np.tanh(feeds[NETWORK_INPUT].mean((1, 2, 3)))[:, None] * wobble
        return {NETWORK_OUTPUT: np.concatenate([0.5 + bright, 0.5 - bright], axis=1)}

    notes = _noted(answer, spec)
    assert [note.startswith("NETWORK_OUTPUT: one answer to all inputs compared") for note in notes] == [True] * is_told


def test_lengths_that_differ_are_no_reason_to_call_an_output_constant(spec: Spec) -> None:
    def images(batch: int, length: int, rng: np.random.Generator) -> Arrays:
        return {NETWORK_INPUT: rng.standard_normal((batch, length)).astype(np.float32)}

    assert _noted(lambda feeds: {NETWORK_OUTPUT: feeds[NETWORK_INPUT]}, spec, make=images, lengths=(1, 7)) == []
    (note,) = _noted(lambda f: {NETWORK_OUTPUT: 0 * f[NETWORK_INPUT]}, spec, make=images, lengths=(1, 7))
    assert note.startswith("NETWORK_OUTPUT: one answer")


def test_the_report_says_which_range_of_inputs_was_compared(spec: Spec) -> None:
    real = Batch("real", {NETWORK_INPUT: np.full((1, 4, 3, 1), 255, np.float32)})
    network = dense_network()
    report = check_parity([_stage(network.reference, network.reference)._replace(real=(real,))], spec=spec)
    low, high = report["inputs"][NETWORK_INPUT]
    assert -5 < low < -2
    assert high == 255


@pytest.mark.parametrize(
    ("parity", "real", "is_told"), [({}, False, True), ({"input_range": [0, 255]}, False, False), ({}, True, False)]
)
def test_inputs_that_nobody_chose_are_told(
    tmp_path: Path, parity: dict[str, Any], *, real: bool, is_told: bool
) -> None:
    whole = {"name": "tiny", "task": "tensors", "model": "tiny.keras", "parity": parity}
    given = (Batch("real", _images(1, 1, np.random.default_rng(0))),) if real else ()
    notes = _noted(dense_network().reference, load_spec(write_spec(tmp_path, whole)), real=given)
    assert ["parity.input_range" in note for note in notes] == [True] * is_told
