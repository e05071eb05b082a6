"""Arrays to typed results, by the contract's task."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np

from radserve._codec._decode import untrusted
from radserve._codec._segmentation import segmented
from radserve.contracts import (
    DECISIONS,
    EVIDENCE,
    GENERATED_TEXT,
    IS_COMPLETE,
    LOG_PROBABILITY,
    PROBABILITIES,
    TOKEN_COUNT,
    Decision,
    Task,
    TextInput,
)
from radserve.errors import OutOfScopeError
from radserve.preprocess import interpolate_to_source_grid
from radserve.results import (
    Classification,
    EvidenceMap,
    Finding,
    GeneratedText,
    Provenance,
    Result,
    Segmentation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve._codec._decode import Answer
    from radserve._codec._prepare import Prepared
    from radserve.contracts import Contract, Label

Prediction: TypeAlias = Classification | Segmentation | GeneratedText
_TYPES: dict[Task, type[Result]] = {
    Task.IMAGE_CLASSIFICATION: Classification,
    Task.SIGNAL_CLASSIFICATION: Classification,
    Task.TEXT_CLASSIFICATION: Classification,
    Task.IMAGE_SEGMENTATION: Segmentation,
    Task.TEXT_GENERATION: GeneratedText,
}
_ON_EDGE = 1e-6


class _Origin(TypedDict):
    """What every result says about where it comes from."""

    model: str
    version: int
    provenance: Provenance


def result_type(contract: Contract) -> type[Result]:
    """What a model of this contract answers; Result itself for ``task: tensors``, which answers arrays."""
    return _TYPES.get(contract.task, Result)


def combine(contract: Contract, prepared: Prepared, answers: Sequence[Answer]) -> Prediction:
    """Make the result of the answers to all ``batches`` of one input.

    Args:
        contract: Says how the answers about a study's images become one.
        prepared: What was sent.
        answers: One for each batch, in their order.

    Raises:
        InferenceFailedError: An answer cannot be trusted.
        OutOfScopeError: The report is longer than the model reads.
    """
    (answer,) = answers
    return to_result(contract, prepared, answer)


def to_result(contract: Contract, prepared: Prepared, answer: Answer) -> Prediction:
    """Make the typed result of one item.

    Raises:
        InferenceFailedError: The answer cannot be trusted.
        OutOfScopeError: The report is longer than the model reads.
    """
    described = contract.input
    if isinstance(described, TextInput):
        count = int(answer.arrays[TOKEN_COUNT][0, 0])
        if count > described.max_tokens:
            msg = f"the report has {count} tokens, the model reads at most {described.max_tokens}: shorten it"
            raise OutOfScopeError(msg)
    if contract.task is Task.TEXT_GENERATION:
        return _generated(contract, prepared, answer)
    if contract.task is Task.IMAGE_SEGMENTATION:
        label_map, regions = segmented(contract, prepared, answer)
        return Segmentation(**_origin(contract, prepared, answer), label_map=label_map, findings=regions)
    return _classified(contract, prepared, answer)


def _origin(contract: Contract, prepared: Prepared, answer: Answer) -> _Origin:
    provenance = Provenance(
        intended_use=contract.intended_use,
        model_sha256=contract.model_sha256,
        contract_sha256=contract.sha256,
        sdk_version=sdk_version(),
        sop_instance_uids=prepared.sop_instance_uids,
        request_id=answer.request_id,
        created=datetime.now(timezone.utc),
    )
    return {"model": contract.name, "version": contract.version, "provenance": provenance}


def _generated(contract: Contract, prepared: Prepared, answer: Answer) -> GeneratedText:
    try:
        text = bytes(answer.arrays[GENERATED_TEXT][0, 0]).decode()
    except UnicodeDecodeError:
        raise untrusted(contract, answer.request_id, "the text is not UTF-8") from None
    log_probability = float(answer.arrays[LOG_PROBABILITY][0, 0])
    if log_probability > _ON_EDGE:
        raise untrusted(contract, answer.request_id, "a probability is above 1")
    return GeneratedText(
        **_origin(contract, prepared, answer),
        text=text,
        is_complete=bool(answer.arrays[IS_COMPLETE][0, 0]),
        log_probability=log_probability,
    )


def _classified(contract: Contract, prepared: Prepared, answer: Answer) -> Classification:
    probabilities, decisions = answer.arrays[PROBABILITIES][0], answer.arrays[DECISIONS][0]
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise untrusted(contract, answer.request_id, "a probability is outside 0 to 1")
    if not {decision.value for decision in Decision}.issuperset(decisions.tolist()):
        raise untrusted(contract, answer.request_id, "a decision is none of negative, indeterminate and positive")
    for label, probability, decision in zip(contract.labels, probabilities, decisions, strict=True):
        if not _agrees(label, float(probability), int(decision)):
            raise untrusted(contract, answer.request_id, f"the decision about {label.name} contradicts its threshold")
    findings = [
        Finding(
            label=label.name,
            probability=float(probability),
            threshold=label.threshold,
            is_positive=decision == Decision.POSITIVE,
            is_indeterminate=decision == Decision.INDETERMINATE,
            indeterminate=label.indeterminate,
            code=label.code,
        )
        for label, probability, decision in zip(
            contract.labels, probabilities.tolist(), decisions.tolist(), strict=True
        )
    ]
    findings.sort(key=lambda finding: -finding.probability)
    shown = None if contract.evidence is None else _evidence(contract, prepared, answer, findings[0].label)
    return Classification(**_origin(contract, prepared, answer), findings=tuple(findings), evidence=shown)


def _evidence(contract: Contract, prepared: Prepared, answer: Answer, label: str) -> EvidenceMap:
    (values,) = answer.arrays[EVIDENCE]
    if values.min() < 0 or values.max() > 1:
        raise untrusted(contract, answer.request_id, "the evidence map has a value outside 0 to 1")
    assert contract.evidence is not None  # noqa: S101 - asked before
    assert prepared.placement is not None  # noqa: S101 - a contract with a map has an image input
    placement, shown = prepared.placement, contract.evidence
    top, left, bottom, right = shown.region or (0, 0, placement.rows.wire, placement.columns.wire)
    # Beyond the outermost cells there is no evidence. Were the last value to stay, the largest would have no one place.
    high, wide = (bottom - top) / shown.rows, (right - left) / shown.columns
    around = top - high, left - wide, bottom + high, right + wide
    on_source = interpolate_to_source_grid(np.pad(values, 1), placement, around)
    on_source.flags.writeable = False
    return EvidenceMap(label=label, values=on_source)


def _agrees(label: Label, probability: float, decision: int) -> bool:
    lower, upper = label.indeterminate or (label.threshold, label.threshold)
    if min(abs(probability - lower), abs(probability - upper)) < _ON_EDGE:
        return True  # the server compares in single precision
    expected = Decision.NEGATIVE if probability < lower else Decision.INDETERMINATE
    return decision == (Decision.POSITIVE if probability >= upper else expected)


@lru_cache(maxsize=1)
def sdk_version() -> str:
    """The installed version of radserve."""
    try:
        return metadata.version("radserve")
    except metadata.PackageNotFoundError:  # run from a copied folder
        return "0"
