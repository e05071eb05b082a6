"""Series of a drawn phantom, contracts that read them, and what models answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from support.outlines import LEVELS
from support.sdk_contracts import contract as small_contract
from support.series import stack

from radserve import Classification, Segmentation, _codec
from radserve.contracts import (
    Contract,
    Decision,
    EveryImage,
    FixedWindow,
    ImageInput,
    Policy,
    Task,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT = FixedWindow(center=100.5, width=201)
SIZE = (12, 40, 50)
# A body with an organ: unlike its mirror images and its turns.
DRAWN = np.zeros(SIZE, np.uint8)
DRAWN[3:9, 10:30, 10:40] = 1
DRAWN[4:6, 12:20, 14:20] = 2


def contract(study: Any, task: Task = Task.IMAGE_CLASSIFICATION, **changed: Any) -> Contract:
    standard: dict[str, Any] = {"modalities": ("CT",), "rows": 20, "columns": 25, "window": EXACT}
    described = ImageInput(study=study, absent_attributes=Policy.ACCEPT, **{**standard, **changed})
    names = ("organ", "lesion") if task is Task.IMAGE_SEGMENTATION else ("normal", "opacity")
    return small_contract(described, task=task, names=names, max_batch_size=8)


def series(drawn: NDArray[np.uint8] = DRAWN, **changed: Any) -> list[Any]:
    return stack(np.array(LEVELS)[drawn], **changed)


def probabilities(contract: Contract, prepared: _codec.Prepared, rows: Any) -> list[_codec.Answer]:
    """Answers to the batches, each row decided by its labels' thresholds of 0.5."""
    values, first, answers = np.array(rows, np.float32), 0, []
    for number, batch in enumerate(_codec.batches(prepared, contract.max_batch_size)):
        some = values[first : first + len(batch["PIXELS"])]
        decisions = np.where(some >= 0.5, Decision.POSITIVE, Decision.NEGATIVE).astype(np.int8)
        answers.append(_codec.Answer(arrays={"PROBABILITIES": some, "DECISIONS": decisions}, request_id=f"r{number}"))
        first += len(some)
    return answers


def classified(study: EveryImage, rows: Any, source: Any, **changed: Any) -> Classification:
    described = msgspec.structs.replace(contract(study), **changed)
    prepared = _codec.prepare(described, source)
    result = _codec.combine(described, prepared, probabilities(described, prepared, rows))
    assert isinstance(result, Classification)
    return result


def segmented(described: Contract, source: Any) -> Segmentation:
    """What a perfect model of the phantom answers."""
    prepared = _codec.prepare(described, source)
    answers = [
        _codec.Answer(arrays={"LABEL_MAP": np.rint(batch["PIXELS"][..., 0] / 255 * 2).astype(np.uint8)}, request_id="r")
        for batch in _codec.batches(prepared, described.max_batch_size)
    ]
    result = _codec.combine(described, prepared, answers)
    assert isinstance(result, Segmentation)
    return result
