"""What differs between the tasks of a served model; all else is the same for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.contracts import Task
from radserve_export.tasks.classification import Classification
from radserve_export.tasks.generation import Generation
from radserve_export.tasks.segmentation import Segmentation

if TYPE_CHECKING:
    from radserve_export.tasks._rules import Rules

_RULES: dict[Task, Rules] = {
    Task.IMAGE_CLASSIFICATION: Classification(),
    Task.SIGNAL_CLASSIFICATION: Classification(),
    Task.TEXT_CLASSIFICATION: Classification(),
    Task.IMAGE_SEGMENTATION: Segmentation(),
    Task.TEXT_GENERATION: Generation(),
}


def rules_of(task: Task) -> Rules:
    """The rules of any task but tensors, which has none."""
    return _RULES[task]


__all__ = ["rules_of"]
