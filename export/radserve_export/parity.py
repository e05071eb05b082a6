"""The parity gate: the exported graphs must answer as the Keras model does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from radserve.contracts import Datatype, Task
from radserve.errors import ParityError, SpecError
from radserve_export.tasks import rules_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from radserve.contracts import TensorSpec
    from radserve_export.network import Arrays, Runner
    from radserve_export.spec import Spec
    from radserve_export.tasks._rules import Wrong

SEED = 20261122
# Lengths given to axes that a model leaves free: those of a sequence, and those of images and volumes.
SEQUENCE_LENGTHS, SPATIAL_LENGTHS = (1, 7, 64), (32, 64)


def batch_sizes(max_batch_size: int) -> tuple[int, ...]:
    """1, 2, 7 and the largest, as far as the model takes them."""
    largest = max_batch_size or 7
    return tuple(sorted({size for size in (1, 2, 7, largest) if size <= largest}))


def random_input(
    wanted: TensorSpec,
    batch: int,
    rng: np.random.Generator,
    *,
    length: int = 64,
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
        length: Of axes that the model leaves free.
        vocabulary: What token ids stay below; None if the integers are none.
        limits: Lowest and highest value.
    """
    shape = (batch, *(axis if axis > 0 else length for axis in wanted.dims))
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


def free_lengths(inputs: Sequence[TensorSpec]) -> tuple[int, ...]:
    """The lengths that the free axes of a model's inputs are tried with; one that does not matter if none is free."""
    free = [tensor for tensor in inputs if -1 in tensor.dims]
    if not free:
        return (1,)
    return SEQUENCE_LENGTHS if all(len(tensor.dims) <= 2 for tensor in free) else SPATIAL_LENGTHS  # noqa: PLR2004 - steps, and features of each


class Batch(NamedTuple):
    """Inputs to compare on.

    Attributes:
        where: What to call them in messages.
        feeds: Arrays by name.
    """

    where: str
    feeds: Arrays


class Stage(NamedTuple):
    """Something to compare.

    Attributes:
        name: What it is called in the report.
        outputs: What is compared.
        make: Makes a random batch of so many rows, whose free axes have such a length.
        exported: Answers it as it will be served.
        reference: Answers it as the trained model does.
        lengths: Lengths of the free axes to try.
        real: Batches of real inputs.
    """

    name: str
    outputs: tuple[str, ...]
    make: Callable[[int, int, np.random.Generator], Arrays]
    exported: Runner
    reference: Runner
    lengths: tuple[int, ...] = (1,)
    real: tuple[Batch, ...] = ()

    def batches(self, sizes: Sequence[int]) -> Iterator[Batch]:
        """All that is compared on, one by one."""
        for length in self.lengths:
            for size in sizes:
                where = f"random batch of {size}" + (f", length {length}" if len(self.lengths) > 1 else "")
                yield Batch(where, self.make(size, length, np.random.default_rng([SEED, size, length])))
        yield from self.real


@dataclass(kw_only=True)
class _Measured:
    """What was seen of one output, over all batches."""

    max_abs: float = 0.0
    worst_excess: float = 0.0
    agreeing: int = 0
    rows: int = 0
    reasons: list[str] = field(default_factory=list)
    seen: _Range | None = None


class _Range(NamedTuple):
    """The least and the greatest value of each column; of all of them together where they are not always as many."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.generic], before: _Range | None = None) -> _Range | None:
        """The range of an array and of what was seen before; None where there is nothing."""
        if not values.size:
            return before
        columns = values.astype(np.float64).reshape(-1, values.shape[-1] if values.ndim == 2 else 1)  # noqa: PLR2004 - rows and columns
        found = cls(columns.min(axis=0), columns.max(axis=0))
        if before is None:
            return found
        if before.low.shape != found.low.shape:
            before, found = (cls(one.low.min(keepdims=True), one.high.max(keepdims=True)) for one in (before, found))
        return cls(np.minimum(before.low, found.low), np.maximum(before.high, found.high))

    def hardly_varies(self, allowed: NDArray[np.float64]) -> bool:
        """Whether one answer to everything would pass as well."""
        return bool((self.high - self.low <= allowed).all())


def _compare(
    name: str,
    got: NDArray[np.generic],
    want: NDArray[np.generic],
    *,
    spec: Spec,
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
    measured.seen = _Range.of(b, measured.seen)
    differences = np.abs(a - b)
    allowed = spec.parity.allowed(name, b)
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
        The report for the manifest: per output the largest difference, the range of
        each input, and notes where all this shows little.

    Raises:
        ParityError: Which output, how far, on which input.
    """
    _check_names(stages, spec)
    sizes = batch_sizes(spec.serving.max_batch_size)
    outputs: dict[str, dict[str, Any]] = {}
    reasons: list[str] = []
    ranges: dict[str, dict[str, _Range | None]] = {}
    constant: list[str] = []
    for stage in stages:
        for name, measured in _measure(stage, sizes, spec, ranges.setdefault(stage.name, {})).items():
            seen = measured.seen
            if seen is not None and seen.hardly_varies(spec.parity.allowed(name, np.maximum(-seen.low, seen.high))):
                constant.append(name)
            agreement = measured.agreeing / measured.rows if measured.rows else None
            tolerance = spec.parity.of(name)
            entry = {"max_abs": measured.max_abs, "argmax_agreement": agreement, "failures": measured.reasons}
            entry |= {"atol": tolerance.atol, "rtol": tolerance.rtol}
            outputs[f"{stage.name}/{name}"] = entry
            reasons += [f"{stage.name}: {reason}" for reason in measured.reasons]
    report = {"seed": SEED, "batch_sizes": list(sizes), "input_range": spec.parity.input_range, "outputs": outputs}
    report["lengths"] = sorted({length for stage in stages for length in stage.lengths if len(stage.lengths) > 1})
    report["real_inputs"] = max((sum(len(next(iter(b.feeds.values()))) for b in s.real) for s in stages), default=0)
    taken = ranges[stages[0].name].items() if stages else ()
    report["inputs"] = {name: [float(of.low.min()), float(of.high.max())] for name, of in taken if of is not None}
    report["notes"] = _notes(spec, report, constant)
    if reasons:
        msg = f"{spec.name} does not answer as its Keras model does: {reasons[0]}"
        raise ParityError(msg, report)
    return report


def _notes(spec: Spec, report: Mapping[str, Any], constant: Sequence[str]) -> list[str]:
    """Where the gate passed, and shows little."""
    notes = []
    if constant:
        notes.append(
            f"{', '.join(dict.fromkeys(constant))}: one answer to all inputs compared,"
            " within the tolerance, which shows little: is"
            " the model trained, and are such inputs (parity.input_range, parity.data) what it was trained on?"
        )
    chosen = spec.parity.input_range is not None or report["real_inputs"]
    if spec.task is Task.TENSORS and not chosen and any(low % 1 for low, _ in report["inputs"].values()):
        notes.append(
            "the inputs compared were normal numbers with standard deviation 1: if the model expects others, such as"
            " pixels of 0 to 255, say so in parity.input_range, or name real ones in parity.data"
        )
    return notes


def _check_names(stages: Sequence[Stage], spec: Spec) -> None:
    """A tolerance of what is not compared by one would be passed over."""
    own_rules = {} if spec.task is Task.TENSORS else rules_of(spec.task).own_rules
    compared = {name for stage in stages for name in stage.outputs} - set(own_rules)
    for name in spec.parity.outputs:
        if name not in compared:
            others = ", ".join(sorted(compared))
            msg = f"{spec.name}: parity.outputs: {name} is not compared by a tolerance: {others} are"
            raise SpecError(msg)


def _measure(stage: Stage, sizes: Sequence[int], spec: Spec, ranges: dict[str, _Range | None]) -> dict[str, _Measured]:
    seen = {name: _Measured() for name in stage.outputs}
    own_rules: Mapping[str, Wrong] = {} if spec.task is Task.TENSORS else rules_of(spec.task).own_rules
    for where, feeds in stage.batches(sizes):
        got, want = stage.exported(feeds), stage.reference(feeds)
        ranges |= {name: _Range.of(fed, ranges.get(name)) for name, fed in feeds.items()}
        for name, measured in seen.items():
            if name not in got or name not in want:
                measured.reasons.append(f"{name} is not given by {'Keras' if name in got else 'the graph'}")
            elif name in own_rules:
                _apply(name, own_rules[name](got, want, spec), measured, where)
            else:
                _compare(name, got[name], want[name], spec=spec, measured=measured, where=where)
    return seen


def _apply(name: str, wrong: NDArray[np.bool_], measured: _Measured, where: str) -> None:
    measured.rows += wrong.size
    measured.agreeing += int(wrong.size - wrong.sum())
    if wrong.any():
        measured.max_abs = 1.0
        measured.reasons.append(f"{name} differs on a {where}, row {int(wrong.argmax())}")
