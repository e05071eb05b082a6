"""The population that a model is made for: how its levels and scores are distributed.

Later inputs are compared with it by the Kolmogorov-Smirnov distance: the
largest difference of two cumulative distributions, taken at the edges of the bins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.contracts import PROBABILITIES, Distribution, Reference, Task
from radserve.errors import SpecError
from radserve.preprocess import level
from radserve_export.datasets import load_dataset
from radserve_export.graphs.checked import Chain
from radserve_export.real_inputs import graph_rows, read_folder, wire_array
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export.ensemble import Step
    from radserve_export.spec import Spec
    from radserve_export.tokenizer import TextTokenizer

SCORE_EDGES = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999)
"""Steps in the odds, the same for all models.

A sure classifier's scores lie close to 0 and 1, where equal steps would see them
all in two bins. Edges at the scores' own quantiles would differ between versions,
and move with the last bit of a matrix product.
"""
_LEVEL_BINS = 20
_DIGITS = 4
_FEWEST = 200  # below, chance alone would part two samples of the same population too often
_BATCH = 64


def measure_population(
    spec: Spec, folder: Path, steps: Sequence[Step], tokenizer: TextTokenizer | None
) -> Reference | None:
    """Measure what a spec's ``reference`` block names.

    Args:
        spec: The spec.
        folder: Where it lies.
        steps: The steps as they will be served.
        tokenizer: That of a text model.

    Returns:
        None where the spec has no such block.

    Raises:
        SpecError: The data cannot be read, is none that the model takes, or too little.
    """
    if spec.reference is None or spec.input is None:
        return None
    found = _inputs(spec, folder)
    if len(found) < _FEWEST:
        msg = f"{spec.name}: reference needs {_FEWEST} inputs or more, and has {len(found)}"
        raise SpecError(msg)
    levels = np.array([level(one, spec.input) for one in found])
    scores = _scores(graph_rows(spec, found, tokenizer), steps) if _is_scored(spec) else np.empty((0, 0))
    return Reference(
        n=len(found),
        level=distribution(levels, _quantiles(levels)),
        scores=tuple(distribution(label, SCORE_EDGES) for label in scores.T),
    )


def distribution(values: NDArray[np.floating[Any]], edges: Sequence[float]) -> Distribution:
    """Count values in bins whose upper ends are inclusive."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return Distribution(edges=tuple(edges), shares=tuple((counts / len(values)).tolist()))


def missing(spec: Spec) -> str | None:
    """What to tell whoever exports a model without a reference."""
    if spec.reference is not None or spec.task is Task.TENSORS:
        return None
    return "no reference: nobody will see its inputs drift; name inputs in the spec's reference block"


def _inputs(spec: Spec, folder: Path) -> list[NDArray[Any]]:
    plan = spec.reference
    if plan is None:
        return []
    if plan.data is None:
        samples = generate(str(plan.generator), plan.samples, seed=plan.seed, split=Split.TEST)
        return [wire_array(spec, sample.source) for sample in samples]
    path = folder / plan.data
    if path.suffix != ".npz":
        return read_folder(spec, path, "reference.data")
    everything, kept_apart = load_dataset(spec, path, None, lambda *_: None)
    return list((kept_apart or everything).x)


def _is_scored(spec: Spec) -> bool:
    return spec.task.has_labels and spec.task is not Task.IMAGE_SEGMENTATION


def _scores(rows: NDArray[Any], steps: Sequence[Step]) -> NDArray[np.float32]:
    """Probabilities ``(inputs, labels)`` as the served graphs give them."""
    graphs = [step for step in steps if step.graph is not None]
    chain = Chain([step.graph for step in graphs if step.graph is not None])
    (taken,) = graphs[0].inputs
    parts = [chain({taken.name: rows[start : start + _BATCH]}) for start in range(0, len(rows), _BATCH)]
    return np.concatenate([part[PROBABILITIES] for part in parts])


def _quantiles(levels: NDArray[np.float64]) -> tuple[float, ...]:
    """Edges that part the levels evenly, in few digits: each step of the cumulative distribution is as large."""
    ordered = np.sort(levels)
    edges = [ordered[(len(levels) * part - 1) // _LEVEL_BINS] for part in range(1, _LEVEL_BINS)]
    return tuple(sorted({float(f"{edge:.{_DIGITS}g}") + 0.0 for edge in edges}))
