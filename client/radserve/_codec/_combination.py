"""The answers about a study's images, label by label, to the study's own."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, cast

import numpy as np

from radserve._codec._form import form_of
from radserve._codec._plain import made
from radserve.contracts import Combination, Decision, EveryImage, ImageInput
from radserve.results import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from radserve.contracts import Contract, Label

_INDETERMINATE, _POSITIVE = int(Decision.INDETERMINATE), int(Decision.POSITIVE)
_probability = attrgetter("probability")


def combined(contract: Contract, probabilities: NDArray[np.float32]) -> tuple[Finding, ...]:
    """The study's findings; decided by the labels' thresholds, as the server decides about an image.

    Args:
        contract: Its study says how.
        probabilities: ``(images, labels)``.
    """
    study = cast("EveryImage", cast("ImageInput", contract.input).study)
    exact = probabilities.astype(np.float64)
    if study.combination is Combination.MAXIMUM:
        of_study = exact.max(axis=0)
    elif study.combination is Combination.MEAN:
        of_study = exact.mean(axis=0)
    else:
        of_study = 1 - np.prod(1 - exact, axis=0)
    decisions = [_decision(label, value) for label, value in zip(contract.labels, of_study, strict=True)]
    return findings_of(contract, of_study.tolist(), decisions)


def _decision(label: Label, probability: float) -> Decision:
    # The server compares in single precision.
    lower, upper = (np.float32(edge) for edge in label.indeterminate or (label.threshold, label.threshold))
    if np.float32(probability) >= upper:
        return Decision.POSITIVE
    return Decision.NEGATIVE if np.float32(probability) < lower else Decision.INDETERMINATE


def findings_of(contract: Contract, probabilities: Sequence[float], decisions: Sequence[int]) -> tuple[Finding, ...]:
    """One finding for each label, most probable first.

    Args:
        contract: Names the labels.
        probabilities: One for each label.
        decisions: Values of Decision.
    """
    findings = []
    for label, probability, decision in zip(form_of(contract).labels, probabilities, decisions, strict=True):
        attributes = label[decision].copy()
        attributes["probability"] = probability
        findings.append(made(Finding, attributes))
    findings.sort(key=_probability, reverse=True)
    return tuple(findings)
