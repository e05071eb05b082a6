"""The parity gate: the exported graphs must answer as the Keras model does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from radserve.contracts import DECISIONS, PROBABILITIES, Datatype
from radserve.errors import ParityError
from radserve_export.graphs.postprocess import decision_edges

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from radserve.contracts import TensorSpec
    from radserve_export.network import Arrays, Runner
    from radserve_export.spec import Parity, Spec

SEED = 20261122
_FREE_AXIS = 64  # length given to an axis that the model leaves free


def batch_sizes(max_batch_size: int) -> tuple[int, ...]:
    """1, 2, 7 and the largest, as far as the model takes them."""
    largest = max_batch_size or 7
    return tuple(sorted({size for size in (1, 2, 7, largest) if size <= largest}))


def random_input(
    wanted: TensorSpec,
    batch: int,
    rng: np.random.Generator,
    *,
    vocabulary: int | None,
    limits: tuple[float, float] | None,
) -> NDArray[np.generic]:
    """A batch that a caller could send.

    Integers span their type's full range, or the limits; token ids stay inside
    the vocabulary and are right-padded to random lengths, 0 included. Floats
    are normal with standard deviation 1, or uniform inside the limits. Some
    steps (rows of an image) are zero.

    Args:
        wanted: The tensor, without its batch axis.
        batch: Rows.
        rng: Where randomness comes from.
        vocabulary: What token ids stay below; None if the integers are none.
        limits: Lowest and highest value.
    """
    shape = (batch, *(axis if axis > 0 else _FREE_AXIS for axis in wanted.dims))
    dtype = wanted.dtype.numpy
    if wanted.dtype is Datatype.BOOL:
        return rng.random(shape) < 0.5  # noqa: PLR2004 - a fair coin
    if vocabulary is not None:
        ids = rng.integers(1, vocabulary, shape) if vocabulary > 1 else np.zeros(shape, np.int64)
        lengths = rng.integers(0, shape[-1] + 1, batch)
        lengths[0] = 0 if batch > 1 else shape[-1]
        kept = np.arange(shape[-1]) < lengths.reshape(batch, *[1] * (len(shape) - 1))
        return np.asarray(ids * kept).astype(dtype)
    if dtype.kind == "f":
        values = (rng.uniform(*limits, shape) if limits else rng.standard_normal(shape)).astype(dtype)
    else:
        whole = np.iinfo(np.dtype(f"{dtype.kind}{dtype.itemsize}"))
        lowest, highest = limits or (whole.min, whole.max)
        lowest, highest = max(int(lowest), whole.min), min(int(highest), whole.max)
        values = rng.integers(lowest, highest, shape, endpoint=True, dtype=np.int64).astype(dtype)
    if len(shape) > 2:  # noqa: PLR2004 - batch, steps and something for each step
        _blank_steps(values, rng)
    return values


def _blank_steps(values: NDArray[np.generic], rng: np.random.Generator) -> None:
    """Zeros at the end of every other row and at a random step: a Masking layer leaves such steps out."""
    steps = values.shape[1]
    for row in range(0, len(values), 2):
        values[row, int(rng.integers(1, steps + 1)) :] = 0
        values[row, int(rng.integers(0, steps))] = 0


class Stage(NamedTuple):
    """Something to compare.

    Attributes:
        name: What it is called in the report.
        make: Makes a random batch.
        exported: Answers it as it will be served.
        reference: Answers it as the trained model does.
    """

    name: str
    make: Callable[[int, np.random.Generator], Arrays]
    exported: Runner
    reference: Runner


@dataclass(kw_only=True)
class _Measured:
    """What was seen of one output, over all batches."""

    max_abs: float = 0.0
    worst_excess: float = 0.0
    agreeing: int = 0
    rows: int = 0
    reasons: list[str] = field(default_factory=list)


def _compare(
    name: str,
    got: NDArray[np.generic],
    want: NDArray[np.generic],
    *,
    tolerance: Parity,
    measured: _Measured,
    where: str,
) -> None:
    if got.shape != want.shape:
        measured.reasons.append(f"{name} has shape {got.shape} instead of {want.shape} on a {where}")
        return
    a, b = got.astype(np.float64), want.astype(np.float64)
    for who, values in (("Keras itself", b), ("the graph", a)):
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            measured.reasons.append(f"{name} of {who} is NaN or infinite on a {where}, row {row}")
            return
    differences = np.abs(a - b)
    allowed = tolerance.atol + tolerance.rtol * np.abs(b)
    measured.max_abs = max(measured.max_abs, float(differences.max(initial=0)))
    excess = differences - allowed
    if excess.max(initial=0) > measured.worst_excess:
        place = np.unravel_index(int(excess.argmax()), excess.shape)
        measured.worst_excess = float(excess[place])
        measured.reasons.insert(
            0,
            f"{name} differs by {float(differences[place]):.3g} on a {where}, row {int(place[0])}"
            f" (allowed there: {float(allowed[place]):.3g})",
        )
    if b.ndim > 1 and b.shape[-1] > 1:
        _compare_largest(name, a, b, allowed, measured=measured, where=where)


def _compare_largest(
    name: str,
    got: NDArray[np.float64],
    want: NDArray[np.float64],
    allowed: NDArray[np.float64],
    *,
    measured: _Measured,
    where: str,
) -> None:
    """The largest value must be the same one, but where two are closer than the tolerance."""
    chosen = np.take_along_axis(want, got.argmax(-1)[..., None], -1)[..., 0]
    agrees = want.max(-1) - chosen <= 2 * allowed.max(-1)
    measured.rows += agrees.size
    measured.agreeing += int(agrees.sum())
    if not agrees.all():
        row = int(np.argwhere(~agrees)[0][0])
        measured.reasons.append(f"the largest value of {name} is another one than in Keras on a {where}, row {row}")


def check_parity(stages: Sequence[Stage], *, spec: Spec) -> dict[str, Any]:
    """Run the gate.

    Args:
        stages: What is compared.
        spec: Tolerances, labels and the largest batch.

    Returns:
        The report for the manifest: per output the largest difference.

    Raises:
        ParityError: Which output, how far, on which input.
    """
    sizes = batch_sizes(spec.serving.max_batch_size)
    outputs: dict[str, dict[str, Any]] = {}
    reasons: list[str] = []
    for stage in stages:
        for name, measured in _measure(stage, sizes, spec).items():
            agreement = measured.agreeing / measured.rows if measured.rows else None
            entry = {"max_abs": measured.max_abs, "argmax_agreement": agreement, "failures": measured.reasons}
            outputs[f"{stage.name}/{name}"] = entry
            reasons += [f"{stage.name}: {reason}" for reason in measured.reasons]
    report = {"seed": SEED, "batch_sizes": list(sizes), "outputs": outputs}
    report |= {"atol": spec.parity.atol, "rtol": spec.parity.rtol, "input_range": spec.parity.input_range}
    if reasons:
        msg = f"{spec.name} does not answer as its Keras model does: {reasons[0]}"
        raise ParityError(msg, report)
    return report


def _measure(stage: Stage, sizes: Sequence[int], spec: Spec) -> dict[str, _Measured]:
    seen: dict[str, _Measured] = {}
    for size in sizes:
        feeds = stage.make(size, np.random.default_rng([SEED, size]))
        got, want = stage.exported(feeds), stage.reference(feeds)
        where = f"random batch of {size}"
        for name, values in want.items():
            measured = seen.setdefault(name, _Measured())
            if name == DECISIONS:
                _compare_decisions(got, want, spec, measured, where)
            else:
                _compare(name, got[name], values, tolerance=spec.parity, measured=measured, where=where)
    return seen


def _compare_decisions(got: Arrays, want: Arrays, spec: Spec, measured: _Measured, where: str) -> None:
    """Decisions must be equal, but where the probability lies on an edge within the tolerance."""
    p = want[PROBABILITIES].astype(np.float64)
    allowed = spec.parity.atol + spec.parity.rtol * np.abs(p)
    lower, upper = decision_edges(spec.labels)
    on_edge = (np.abs(p - lower) <= allowed) | (np.abs(p - upper) <= allowed)
    wrong = (got[DECISIONS] != want[DECISIONS]) & ~on_edge
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        measured.max_abs = 1.0
        measured.reasons.append(f"{DECISIONS} differ on a {where}, row {row}")
