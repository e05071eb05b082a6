"""Temperature scaling makes probabilities honest, on data it was not fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.exports import image_spec, label, write_spec

from radserve.contracts import PROBABILITIES
from radserve.errors import SpecError
from radserve_export.calibrate import calibrate, expected_calibration_error
from radserve_export.graphs.postprocess import postprocess_reference, probabilities_of
from radserve_export.spec import Spec, load_spec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PLAN = {"generator": "chest_xray", "samples": 100, "seed": 9}


def spec_of(folder: Path, **changes: Any) -> Spec:
    return load_spec(write_spec(folder, image_spec(**changes)))


def overconfident(spec: Spec, factor: float, n: int = 4000) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Outputs whose logits are ``factor`` times those that the labels were drawn by."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (n, len(spec.labels)))
    p = probabilities_of(logits, spec)
    drawn = rng.random((n, 1))
    y = (drawn[:, 0] < p[:, 0]) if len(spec.labels) == 1 else (p.cumsum(axis=-1) < drawn).sum(axis=-1)
    outputs = factor * logits if spec.network_output == "logits" else probabilities_of(factor * logits, spec)
    return outputs.astype(np.float32), y.astype(np.int64)


@pytest.mark.parametrize("form", ["logits", "probabilities"])
@pytest.mark.parametrize("labels", [3, 1])
@pytest.mark.parametrize("factor", [3.0, 0.4])
def test_the_true_temperature_is_found(tmp_path: Path, form: str, labels: int, factor: float) -> None:
    names = [label(name) for name in "abc"[:labels]]
    spec = spec_of(tmp_path, network_output=form, labels=names, exclusive=labels > 1)
    outputs, y = overconfident(spec, factor)
    calibrated, report = calibrate(spec, outputs, y)
    assert calibrated.calibration.temperature == report["temperature"] == pytest.approx(factor, rel=0.15)
    assert report["ece_after"] < report["ece_before"] / 2
    assert report["nll_after"] < report["nll_before"]
    assert (report["n_fitted"], report["n_measured"]) == (2000, 2000)


def test_the_report_is_of_what_will_be_served(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    outputs, y = overconfident(spec, 3.0, n=400)
    calibrated, report = calibrate(spec, outputs, y)
    measured = np.random.default_rng(20261122).permutation(400)[1::2]
    served = postprocess_reference(outputs[measured], calibrated)[PROBABILITIES].astype(np.float64)
    truth = y[measured, None] == np.arange(3)
    assert expected_calibration_error(served, truth, exclusive=True) == pytest.approx(report["ece_after"], abs=1e-6)


def test_samples_that_take_turns_do_not_mislead_the_fit(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    outputs, y = overconfident(spec, 4.0)
    outputs[1::2] = overconfident(spec, 1.0)[0][1::2]
    _, report = calibrate(spec, outputs, y)
    assert report["nll_after"] < report["nll_before"]


def test_the_error_of_a_hand_made_example() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.62, 0.38], [0.62, 0.38]])
    truth = np.array([[True, False], [False, True], [True, False], [True, False]])
    assert expected_calibration_error(p, truth, exclusive=True) == pytest.approx(0.5 * 0.4 + 0.5 * 0.38)


def test_data_that_no_temperature_fits_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    outputs, y = overconfident(spec, 1.0, n=400)
    with pytest.raises(SpecError, match="labelled as the spec says"):
        calibrate(spec, outputs, (y + 1) % 3)


def test_data_that_is_too_easy_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    outputs, _ = overconfident(spec, 1.0, n=400)
    with pytest.raises(SpecError, match=r"every answer on the held-out data is right.*give harder data"):
        calibrate(spec, outputs, outputs.argmax(axis=-1))


@pytest.mark.parametrize("labels", [3, 1])
def test_a_network_that_answers_nearly_the_same_to_everything_is_told_so(tmp_path: Path, labels: int) -> None:
    spec = spec_of(tmp_path, labels=[label(name) for name in "abc"[:labels]], exclusive=labels > 1)
    rng = np.random.default_rng(0)
    p = 1 / max(labels, 2) + rng.normal(0, 1e-4, (400, labels)) + [0.001, *[0] * (labels - 1)]
    if labels > 1:
        p /= p.sum(axis=1, keepdims=True)
    y = (rng.random(400) < 0.1) ^ (labels == 1)  # nearly always the label that is a little ahead
    with pytest.raises(SpecError, match=r"lie between 0\.\d+ and 0\.\d+, too close .* is the model trained"):
        calibrate(
            spec, (p / (p.sum(axis=1, keepdims=True) if labels > 1 else 1)).astype(np.float32), y.astype(np.int64)
        )


def test_a_temperature_that_fits_one_half_alone_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    outputs, y = overconfident(spec, 3.0, n=400)
    sharp, _ = overconfident(spec, 1.0, n=400)
    measured = np.random.default_rng(20261122).permutation(400)[1::2]
    outputs[measured] = sharp[measured]
    with pytest.raises(SpecError, match="makes the other half worse"):
        calibrate(spec, outputs, y)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_value_that_is_no_number_is_refused(tmp_path: Path, wrong: float, place: int) -> None:
    """Among what is fitted on, or among what is measured."""
    spec = spec_of(tmp_path)
    outputs, y = overconfident(spec, 3.0, n=400)
    outputs[np.random.default_rng(20261122).permutation(400)[place], 1] = wrong
    with pytest.raises(SpecError, match="NaN or infinite"):
        calibrate(spec, outputs, y)


def test_data_of_one_class_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(SpecError, match="one class alone"):
        calibrate(spec, overconfident(spec, 3.0, n=400)[0], np.zeros(400, np.int64))


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(SpecError, match="40 samples"):
        calibrate(spec, np.full((39, 3), 1 / 3, np.float32), np.arange(39) % 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"calibrate": {"samples": 3}}, "name either a generator or data"),
        ({"calibrate": PLAN | {"data": "folder"}}, "name either a generator or data"),
        ({"calibrate": PLAN, "calibration": {"temperature": 2}}, "leave one of them out"),
        ({"calibrate": PLAN, "training": PLAN}, "choose another seed"),
        ({"calibrate": {"data": "x", "seed": 3}}, "a seed to a generator"),
        ({"calibrate": PLAN}, "it also gives normal, which is no label here"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        spec_of(tmp_path, **changes)
