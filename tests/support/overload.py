"""A model that answers so many requests per second and no more, and callers that ask for more than that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from support.repositories import ADD_ONE_INPUTS, ADD_ONE_OUTPUTS, write_config, write_public

from radserve import RadserveError
from radserve.loadtest._schedule import poisson

if TYPE_CHECKING:
    from pathlib import Path

    from radserve import AsyncModel

SERVICE_S = 0.02
_STEP = f"""
import time
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        time.sleep({SERVICE_S} * len(requests))
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array + 1)]) for array in arrays]
"""


_BATCHING = {
    "priorities": "dynamic_batching { priority_levels: 3 default_priority_level: 3 default_queue_policy {"
    " timeout_action: REJECT default_timeout_microseconds: 30000000 allow_timeout_override: true max_queue_size: 1024"
    " } }",
    "plain": "dynamic_batching { }",
}
QUEUES = tuple(_BATCHING)
_BATCH = 16


def write_slow(repository: Path, queue: str) -> None:
    """Write the model ``slow``, of two instances, with a queue as by default, or that of ``queue: null``."""
    step = repository / "slow_step"
    tensors = (ADD_ONE_INPUTS, ADD_ONE_OUTPUTS)
    write_config(step, *tensors, backend="python", max_batch_size=_BATCH, instances=2)
    config = step / "config.pbtxt"
    config.write_text(
        config.read_text().replace("dynamic_batching { max_queue_delay_microseconds: 0 }", _BATCHING[queue])
    )
    (step / "1").mkdir()
    (step / "1" / "model.py").write_text(_STEP)
    write_public(repository, "slow", step.name, *tensors, max_batch_size=_BATCH)


@dataclass
class Outcome:
    """What became of requests.

    Attributes:
        seconds: For how long they were sent.
        answered: When each answer came, from the begin, and how long it took.
        failed: How long each failure took, by type.
        wrong: Answers that were not those of their questions.
    """

    seconds: float
    answered: list[tuple[float, float]] = field(default_factory=list)
    failed: dict[str, list[float]] = field(default_factory=dict)
    wrong: int = 0

    def rate(self, begin_s: float = 0.0, end_s: float | None = None) -> float:
        """Answers per second of a part of the time."""
        end_s = self.seconds if end_s is None else end_s
        return sum(begin_s <= at < end_s for at, _ in self.answered) / (end_s - begin_s)

    @property
    def latencies(self) -> list[float]:
        """Of the answers."""
        return [latency for _, latency in self.answered]


async def _ask(model: AsyncModel[Any], number: int, outcome: Outcome, begin: float, timeout_s: float) -> None:
    sent = time.monotonic()
    x = np.full((1, 4), number, np.float32)
    try:
        y = (await model.infer({"X": x}, timeout_s=timeout_s))["Y"]
    except RadserveError as error:
        outcome.failed.setdefault(type(error).__name__, []).append(time.monotonic() - sent)
    else:
        outcome.answered.append((time.monotonic() - begin, time.monotonic() - sent))
        outcome.wrong += not (y == x + 1).all()


async def in_turn(model: AsyncModel[Any], callers: int, seconds: float, timeout_s: float = 20) -> Outcome:
    """Callers each of whom asks again as soon as there is an answer."""
    outcome, begin = Outcome(seconds), time.monotonic()

    async def call(number: int) -> None:
        while time.monotonic() < begin + seconds:
            await _ask(model, number, outcome, begin, timeout_s)

    await asyncio.gather(*map(call, range(callers)))
    return outcome


async def when_due(model: AsyncModel[Any], rate: float, seconds: float, timeout_s: float, seed: int = 0) -> Outcome:
    """Requests at random times of a rate, whatever became of those before."""
    outcome, begin, asking = Outcome(seconds), time.monotonic(), set()
    for number, due in enumerate(poisson(rate, seed=seed, worker=0)):
        if due > seconds:
            break
        await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
        asking.add(asyncio.create_task(_ask(model, number % 2**20, outcome, begin, timeout_s)))
    await asyncio.gather(*asking)
    return outcome
