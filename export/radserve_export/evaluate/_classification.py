"""How good a classifier is."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.contracts import PROBABILITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve import Classification, Model
    from radserve_export.reference import Reference
    from radserve_export.spec import Spec
    from radserve_export.synthetic import Sample


def score(spec: Spec, samples: Sequence[Sample], results: Sequence[Classification]) -> dict[str, Any]:
    """Compare findings with what the samples are.

    The most probable label counts; of a single label, the served model's decision.

    Args:
        spec: Names the labels.
        samples: What was sent.
        results: What came back, in the same order.

    Returns:
        n, labels, confusion (rows are the truth, columns the answers) and accuracy;
        of a model with evidence maps also where their largest values lie.
    """
    names = [label.name for label in spec.labels]
    single = len(names) == 1
    labels = [f"not {names[0]}", names[0]] if single else names
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    for sample, result in zip(samples, results, strict=True):
        if single:
            truth, answer = int(sample.label == names[0]), int(result.top.is_positive)
        else:
            truth, answer = names.index(sample.label), names.index(result.top.label)
        confusion[truth, answer] += 1
    accuracy = float(np.trace(confusion) / max(1, confusion.sum()))
    found = {"n": len(samples), "labels": labels, "confusion": confusion.tolist(), "accuracy": accuracy}
    inside = _inside_lesions(samples, results)
    return found | ({"evidence": {"n": len(inside), "in_lesion": float(np.mean(inside))}} if inside else {})


def _inside_lesions(samples: Sequence[Sample], results: Sequence[Classification]) -> list[bool]:
    """Of each true positive whose place is known: whether its map's largest value lies there."""
    inside = []
    for sample, result in zip(samples, results, strict=True):
        shown, truth = result.evidence, sample.truth
        if shown is not None and truth is not None and truth.any() and result.top.label == sample.label:
            inside.append(bool(truth[np.unravel_index(shown.values.argmax(), shown.values.shape)]))
    return inside


def measure_skew(
    model: Model[Classification], samples: Sequence[Sample], results: Sequence[Classification], reference: Reference
) -> dict[str, Any]:
    """Largest ``|p(Keras on the SDK's preprocessing) - p(served)|``.

    Args:
        model: The served model.
        samples: Some of what was sent.
        results: What came back; as many or more, in the same order.
        reference: Keras' answers.

    Returns:
        n and max.
    """
    names = [label.name for label in model.contract.labels]
    prepared = [model.prepare(sample.source) for sample in samples]
    batch = {name: np.concatenate([arrays[name] for arrays in prepared]) for name in prepared[0]}
    expected = reference(batch)[PROBABILITIES].astype(np.float64)
    served = [
        {finding.label: finding.probability for finding in result.findings} for result in islice(results, len(samples))
    ]
    differences = np.abs(np.asarray([[row[name] for name in names] for row in served]) - expected)
    return {"n": len(samples), "max": float(differences.max())}
