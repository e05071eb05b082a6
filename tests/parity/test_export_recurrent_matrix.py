"""The ways to build a recurrent layer, against each other: native operators, and equal to Keras called eagerly."""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.pairwise import pairs_of, pairwise
from support.recurrent_cases import CROSSED, FACTORS, check_recurrent, name_of

from radserve_export.from_keras import recurrent
from radserve_export.from_keras.recurrent import nodes, operators

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.pairwise import Case

COVER = pairwise(FACTORS, seed=1)
# So many layers in one model: more, and the converter's time grows faster than their number.
TOGETHER = 12


def test_the_cover_has_every_pair_of_values() -> None:
    covered = {pair for case in COVER for pair in pairs_of(case)}
    names = list(FACTORS)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            for pair in product(FACTORS[one], FACTORS[other]):
                assert frozenset(zip((one, other), pair, strict=True)) in covered


@pytest.mark.parametrize("case", COVER, ids=name_of)
def test_a_recurrent_layer_is_native_and_equal_to_keras(case: Case) -> None:
    check_recurrent([case])


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_all_combinations_are_native_and_equal_to_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "1")
    cases = [dict(zip(CROSSED, values, strict=True)) for values in product(*CROSSED.values())]
    # Only a SimpleRNN is another graph where the steps are free.
    cases += [{**case, "time": "free"} for case in cases if case["kind"] == "SimpleRNN"]
    alike: defaultdict[Any, list[Case]] = defaultdict(list)
    for case in cases:
        alike[case["masking"], case.get("time")].append(case)
    shares = [same[start : start + TOGETHER] for same in alike.values() for start in range(0, len(same), TOGETHER)]
    # A fresh process from time to time: what Keras and TensorFlow keep of each model slows them down.
    with multiprocessing.get_context("spawn").Pool(maxtasksperchild=60) as workers:
        workers.starmap(check_recurrent, [(share, number) for number, share in enumerate(shares)], chunksize=1)


def _keras_gates(_: Any, variable: Any) -> Any:
    return np.asarray(variable, np.float32)


def _onnx_slope(cell: Any, kind: str) -> dict[str, Any]:
    """ONNX' own HardSigmoid: 0.2 x + 0.5."""
    attributes = _attributes(cell, kind)
    return {name: value for name, value in attributes.items() if not name.startswith("activation_")}


def _no_mask(build: Any, call: Any, sequence: str, _: Any, states: list[str]) -> list[str]:
    return _results(build, call, sequence, None, states)


def _zero_states(build: Any, operator: Any, sequence: str, lengths: str, _: list[str]) -> list[str]:
    return _operator(build, operator, sequence, lengths, [])


def _zero_states_by_step(build: Any, operator: Any, sequence: str, lengths: str, _: list[str], steps: int) -> list[str]:
    return _step_by_step(build, operator, sequence, lengths, [], steps=steps)


def _last_step(build: Any, operator: Any, sequence: str, _: str, states: list[str], steps: int) -> list[str]:
    return _step_by_step(build, operator, sequence, "", states, steps=steps)


_step_by_step = nodes._step_by_step
_attributes, _results, _operator = operators._attributes, nodes._results, nodes._operator
_PLAIN: Case = {
    **{name: False for name, values in FACTORS.items() if False in values},
    "kind": "LSTM",
    "masking": "plain",
    "wrapper": "none",
    "use_bias": True,
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "time": "fixed",
}


@pytest.mark.parametrize(
    ("module", "part", "wrong", "case"),
    [
        (operators, "_in_order", _keras_gates, {}),
        (operators, "_attributes", _onnx_slope, {"recurrent_activation": "hard_sigmoid"}),
        (operators, "_attributes", _onnx_slope, {"kind": "GRU", "activation": "hard_sigmoid"}),
        (nodes, "_results", _no_mask, {"masking": "Masking"}),
        (nodes, "_results", _no_mask, {"masking": "Embedding", "return_sequences": True}),
        (nodes, "_operator", _zero_states, {"initial_state": True}),
        (nodes, "_step_by_step", _zero_states_by_step, {"kind": "SimpleRNN", "initial_state": True}),
        (nodes, "_step_by_step", _last_step, {"kind": "SimpleRNN", "masking": "Masking"}),
        (nodes._Nodes, "backwards", lambda _, tensor: tensor, {"go_backwards": True}),
        (nodes._Nodes, "backwards", lambda _, tensor: tensor, {"wrapper": "Bidirectional concat"}),
    ],
)
def test_a_wrong_conversion_is_caught(
    monkeypatch: pytest.MonkeyPatch, module: Any, part: str, wrong: Callable[..., Any], case: Case
) -> None:
    check_recurrent([{**_PLAIN, **case}])
    monkeypatch.setattr(module, part, wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_recurrent([{**_PLAIN, **case}])


def test_a_loop_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "why_not_native", lambda _: "a test's wish")
    with pytest.raises(AssertionError, match="a loop for one of"):
        check_recurrent([{**_PLAIN, "kind": "GRU"}])
