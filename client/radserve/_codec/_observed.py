"""What metrics are told of an input and its answer."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from radserve.preprocess import level
from radserve.results import Classification
from radserve.telemetry import watcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from radserve._codec._flow import Prepare
    from radserve._codec._prepared import Prepared
    from radserve._codec._results import Prediction
    from radserve.contracts import Contract
    from radserve.telemetry import Watcher

_UNTOLD = nullcontext()


def preparing(step: Prepare) -> AbstractContextManager[None]:
    """Tells how long an input takes to prepare, around where this is done."""
    told = watcher()
    return _UNTOLD if told is None else _timed(told, step.contract.name)


@contextmanager
def _timed(told: Watcher, model: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        told.prepared(model, time.perf_counter() - begin)


def observe(contract: Contract, prepared: Prepared, result: Prediction) -> None:
    """Tell of what level an input is that was answered, and with which probabilities."""
    told = watcher()
    if told is None:
        return
    described, reference = contract.input, contract.reference
    if described is None or reference is None:
        return
    levels = []
    if reference.level is not None:
        tensor = contract.inputs[0]
        array = prepared.inputs[tensor.name]
        if array.dtype == tensor.dtype.numpy:  # a worker process that a file took over may claim another
            levels = [level(image, described) for image in array]
    scores = []
    if isinstance(result, Classification):
        images = [image.findings for image in result.images] or [result.findings]
        scores = [{finding.label: finding.probability for finding in findings} for findings in images]
    told.answered(contract, levels, scores)
