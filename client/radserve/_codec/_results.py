"""Arrays to typed results, by the contract's task."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np

from radserve._codec._combination import combined, findings_of
from radserve._codec._decode import Answer, untrusted
from radserve._codec._form import form_of
from radserve._codec._plain import made
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
    ImageFindings,
    Provenance,
    Result,
    Segmentation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from radserve._codec._prepared import Prepared
    from radserve.contracts import Contract, Evidence

Prediction: TypeAlias = Classification | Segmentation | GeneratedText
_TYPES: dict[Task, type[Result]] = {
    Task.IMAGE_CLASSIFICATION: Classification,
    Task.SIGNAL_CLASSIFICATION: Classification,
    Task.TEXT_CLASSIFICATION: Classification,
    Task.IMAGE_SEGMENTATION: Segmentation,
    Task.TEXT_GENERATION: GeneratedText,
}
_ON_EDGE = 1e-6
_DECISIONS = frozenset(map(int, Decision))
_NEGATIVE, _INDETERMINATE, _POSITIVE = map(int, Decision)


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
    if len(answers) == 1:
        return to_result(contract, prepared, answers[0])
    names = [tensor.name for tensor in contract.outputs]
    whole = Answer(
        arrays={name: np.concatenate([answer.arrays[name] for answer in answers]) for name in names},
        request_id=",".join(answer.request_id for answer in answers),
    )
    return to_result(contract, prepared, whole)


def to_result(contract: Contract, prepared: Prepared, answer: Answer) -> Prediction:
    """Make the typed result of one input whose rows were all sent in one request.

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
        origin = _origin(contract, prepared, answer)
        return Segmentation(**origin, label_map=label_map, findings=regions, geometry=prepared.geometry)
    return _classified(contract, prepared, answer)


def _origin(contract: Contract, prepared: Prepared, answer: Answer) -> _Origin:
    provenance = made(
        Provenance,
        {
            "task": contract.task,
            "intended_use": contract.intended_use,
            "model_sha256": contract.model_sha256,
            "contract_sha256": contract.sha256,
            "sdk_version": sdk_version(),
            "sop_instance_uids": prepared.sop_instance_uids,
            "frame_numbers": prepared.frame_numbers,
            "request_id": answer.request_id,
            "created": datetime.now(timezone.utc),
        },
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
    probabilities, decisions = answer.arrays[PROBABILITIES].tolist(), answer.arrays[DECISIONS].tolist()
    _check_decisions(contract, answer, probabilities, decisions)
    rows = [findings_of(contract, *row) for row in zip(probabilities, decisions, strict=True)]
    findings = combined(contract, answer.arrays[PROBABILITIES]) if len(rows) > 1 else rows[0]
    images: tuple[ImageFindings, ...] = ()
    if prepared.images:
        images = tuple(
            ImageFindings(sop_instance_uid=uid, frame_number=number, findings=row)
            for (uid, number), row in zip(prepared.images, rows, strict=True)
        )
    shown = None
    if contract.evidence is not None:
        maps = answer.arrays[EVIDENCE]
        if maps.min() < 0 or maps.max() > 1:
            raise untrusted(contract, answer.request_id, "the evidence map has a value outside 0 to 1")
        row = _explained(rows, findings[0].label)
        shown = None if row is None else _evidence(contract.evidence, prepared, maps[row], row, findings[0].label)
    origin = _origin(contract, prepared, answer)
    return made(Classification, {**origin, "findings": findings, "evidence": shown, "images": images})


def _check_decisions(
    contract: Contract, answer: Answer, probabilities: list[list[float]], decisions: list[list[int]]
) -> None:
    # Numbers of Python's: of a single image, which is most of them, arrays take several times as long.
    edges = form_of(contract).edges
    for of_image, decided in zip(probabilities, decisions, strict=True):
        for place, (probability, decision, (lower, upper)) in enumerate(zip(of_image, decided, edges, strict=True)):
            if not 0 <= probability <= 1:
                raise untrusted(contract, answer.request_id, "a probability is outside 0 to 1")
            if decision == (
                _POSITIVE if probability >= upper else _NEGATIVE if probability < lower else _INDETERMINATE
            ):
                continue
            if decision not in _DECISIONS:
                msg = "a decision is none of negative, indeterminate and positive"
                raise untrusted(contract, answer.request_id, msg)
            # The server compares in single precision: on an edge, what is on either side of it may be decided.
            is_below_upper = probability - upper < _ON_EDGE
            is_above_lower = lower - probability < _ON_EDGE
            may_be = {
                _NEGATIVE: probability - lower < _ON_EDGE,
                _INDETERMINATE: lower < upper and is_above_lower and is_below_upper,
                _POSITIVE: upper - probability < _ON_EDGE,
            }
            if not may_be[decision]:
                msg = f"the decision about {contract.labels[place].name} contradicts its threshold"
                raise untrusted(contract, answer.request_id, msg)


def _explained(rows: Sequence[tuple[Finding, ...]], label: str) -> int | None:
    """The image that speaks most for the answer; None if another label is on top in each: a map is of the top one."""
    on_top = [row for row, findings in enumerate(rows) if findings[0].label == label]
    return max(on_top, key=lambda row: rows[row][0].probability, default=None)


def _evidence(shown: Evidence, prepared: Prepared, values: NDArray[np.float32], row: int, label: str) -> EvidenceMap:
    placement = prepared.placements[row] if prepared.placements else prepared.placement
    assert placement is not None  # noqa: S101 - a contract with a map has an image input
    top, left, bottom, right = shown.region or (0, 0, placement.rows.wire, placement.columns.wire)
    # Beyond the outermost cells there is no evidence. Were the last value to stay, the largest would have no one place.
    high, wide = (bottom - top) / shown.rows, (right - left) / shown.columns
    around = top - high, left - wide, bottom + high, right + wide
    on_source = interpolate_to_source_grid(np.pad(values, 1), placement, around)
    on_source.flags.writeable = False
    return EvidenceMap(label=label, values=on_source, image=row if prepared.images else None)


@lru_cache(maxsize=1)
def sdk_version() -> str:
    """The installed version of radserve."""
    try:
        return metadata.version("radserve")
    except metadata.PackageNotFoundError:  # run from a copied folder
        return "0"
