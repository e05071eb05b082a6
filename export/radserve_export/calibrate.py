"""Temperature scaling (Guo et al., On Calibration of Modern Neural Networks, ICML 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from radserve.contracts import Calibration
from radserve.errors import SpecError
from radserve_export.datasets import held_out
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain, signature
from radserve_export.graphs.postprocess import logits_of, probabilities_of
from radserve_export.graphs.preprocess import preprocess_reference

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export.network import Network
    from radserve_export.spec import Spec
    from radserve_export.tokenizer import TextTokenizer

_SEED = 20261122
_BINS = 15
_BATCH = 64
_FEWEST = 40
# Temperatures beyond these say that the data is not what the network was trained for.
_LOWEST, _HIGHEST = 0.05, 20.0
_EDGE = 0.01
_GRID, _ROUNDS = 41, 6
_DIGITS = 4


def calibrate_on_held_out(
    spec: Spec, folder: Path, network: Network, tokenizer: TextTokenizer | None
) -> tuple[Spec, dict[str, Any] | None]:
    """Fit the temperature on what the spec's ``calibrate`` block names.

    Args:
        spec: The spec.
        folder: Where it lies.
        network: The converted network.
        tokenizer: That of a text model.

    Returns:
        As ``calibrate``; the spec itself and None where it has no such block.

    Raises:
        SpecError: The data cannot be read, or does not fit.
    """
    if spec.calibrate is None:
        return spec, None
    data = held_out(spec, folder, lambda *_: None)
    (wanted,), _ = signature(network.graph)
    graph = Chain([network.graph])
    outputs = []
    for start in range(0, len(data.y), _BATCH):
        x = data.x[start : start + _BATCH]
        taken: NDArray[Any] = (
            preprocess_reference(x, spec.network_input)
            if tokenizer is None
            else tokenizer.token_ids([str(text) for text in x], getattr(spec.input, "max_tokens", 0))
        )
        outputs.append(graph({NETWORK_INPUT: taken.astype(wanted.dtype.numpy)})[NETWORK_OUTPUT])
    return calibrate(spec, np.concatenate(outputs), data.y)


def calibrate(spec: Spec, outputs: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[Spec, dict[str, Any]]:
    """Fit the temperature that makes a classifier's probabilities honest.

    A half of the samples, drawn at random, is used to fit, the rest to measure.

    Args:
        spec: The spec; its calibration is replaced.
        outputs: The network's output on held-out samples ``(n, labels)``.
        y: Index of each sample's label ``(n,)``; of a single-label model 1 for
            those that show it.

    Returns:
        The spec with the fitted temperature, and for the manifest: temperature, n of
        both halves, expected calibration error and negative log likelihood before and after.

    Raises:
        SpecError: There are too few samples, or no temperature fits.
    """
    if len(y) < _FEWEST:
        msg = f"{spec.name}: calibrate needs {_FEWEST} samples or more, and has {len(y)}"
        raise SpecError(msg)
    if not np.isfinite(outputs).all():
        msg = f"{spec.name}: calibrate: the network gives NaN or infinite values on the held-out data"
        raise SpecError(msg)
    if len(np.unique(y)) == 1:
        msg = f"{spec.name}: calibrate: the held-out data shows one class alone"
        raise SpecError(msg)
    order = np.random.default_rng(_SEED).permutation(len(y))  # data sets come sorted by label, or in turns
    logits, truth = logits_of(outputs[order].astype(np.float64), spec), _truth(spec, y[order])
    temperature = _fit(spec, logits[::2], truth[::2])
    if not _LOWEST * (1 + _EDGE) < temperature < _HIGHEST * (1 - _EDGE):
        msg = f"{spec.name}: calibrate: {_why_none_fits(spec, temperature, logits[::2], truth[::2])}"
        raise SpecError(msg)
    before, after = (probabilities_of(logits[1::2] / t, spec) for t in (1.0, temperature))
    measured = truth[1::2]
    report = {
        "temperature": temperature,
        "n_fitted": len(truth[::2]),
        "n_measured": len(measured),
        "ece_before": expected_calibration_error(before, measured, exclusive=spec.exclusive),
        "ece_after": expected_calibration_error(after, measured, exclusive=spec.exclusive),
        "nll_before": float(_nll(before, measured, exclusive=spec.exclusive)),
        "nll_after": float(_nll(after, measured, exclusive=spec.exclusive)),
    }
    if not report["nll_after"] <= report["nll_before"]:
        msg = (
            f"{spec.name}: calibrate: the temperature {temperature:g} that fits half of the held-out data makes the"
            " other half worse: give more data, or leave the block out"
        )
        raise SpecError(msg)
    return msgspec.structs.replace(spec, calibration=Calibration(temperature=temperature)), report


def _why_none_fits(spec: Spec, temperature: float, logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> str:
    """What the data and the network have in common where the best temperature is the least or the greatest."""
    if temperature > 1:
        return "no temperature calibrates the model: is the held-out data labelled as the spec says?"
    p = probabilities_of(logits, spec)
    chosen = p >= p.max(axis=-1, keepdims=True) if spec.exclusive else p >= 0.5  # noqa: PLR2004 - more likely than not
    if (chosen == truth).all():
        return "every answer on the held-out data is right, so it cannot tell how sure to be: give harder data"
    return (
        f"the probabilities of the held-out data lie between {p.min():.3g} and {p.max():.3g}, too close to one another"
        " for any temperature: is the model trained, on inputs scaled as network_input says?"
    )


def _truth(spec: Spec, y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """One row a sample, one column a label."""
    labels = np.array([1]) if len(spec.labels) == 1 else np.arange(len(spec.labels))
    return np.asarray(y[:, np.newaxis] == labels)


def _fit(spec: Spec, logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The temperature of the least negative log likelihood, which has one minimum: a grid, refined around it."""
    low, high = np.log(_LOWEST), np.log(_HIGHEST)
    for _ in range(_ROUNDS):
        grid = np.linspace(low, high, _GRID)
        losses = [_nll(probabilities_of(logits / np.exp(t), spec), truth, exclusive=spec.exclusive) for t in grid]
        best = int(np.argmin(losses))
        low, high = grid[max(0, best - 1)], grid[min(_GRID - 1, best + 1)]
    # Few digits: the committed contract must not change with the last bit of a matrix product.
    return float(f"{np.exp((low + high) / 2):.{_DIGITS}g}")


def _nll(p: NDArray[np.float64], truth: NDArray[np.bool_], *, exclusive: bool) -> np.float64:
    tiny = np.finfo(np.float64).tiny
    if exclusive:
        return np.float64(-np.log(np.maximum(p[truth], tiny)).mean())
    return np.float64(-np.log(np.maximum(np.where(truth, p, 1 - p), tiny)).mean())


def expected_calibration_error(p: NDArray[np.float64], truth: NDArray[np.bool_], *, exclusive: bool) -> float:
    """Mean difference of confidence and accuracy over 15 bins of equal width, weighted by their samples.

    Args:
        p: Probabilities ``(n, labels)``.
        truth: What applies ``(n, labels)``.
        exclusive: Whether the largest probability alone counts; else each label by itself.
    """
    if exclusive:
        chosen = p.argmax(axis=-1)
        confidence, right = p.max(axis=-1), truth[np.arange(len(p)), chosen]
    else:
        confidence, right = np.maximum(p, 1 - p).reshape(-1), ((p >= 0.5) == truth).reshape(-1)  # noqa: PLR2004 - more likely than not
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))
