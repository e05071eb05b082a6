"""A public model that waits, fails or answers nonsense, as each request asks."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from support.repositories import write_python
from support.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from radserve import Model

SECRET = "ZZCANARYZZ"  # noqa: S105 - stands for a patient's name
# X[0] numbers a request that waits to be let go, X[1] answers with an error, X[2] raises (2 ends
# the process), X[3] gives a NaN.
_STEP = f"""
import os
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.folder = args["model_repository"]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def note(self, what, x):
        return os.path.join(self.folder, f"{{what}}_{{x[0, 0]:.0f}}")

    def answer(self, request):
        x = request.inputs()[0].as_numpy()
        if x[0, 0]:
            open(self.note("busy", x), "w").close()
            while not os.path.exists(self.note("let_go", x)):
                time.sleep(0.01)
        if x[0, 1]:
            error = pb_utils.TritonError("{SECRET}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        if x[0, 2] == 2:
            os._exit(1)
        if x[0, 2]:
            raise ValueError("{SECRET}")
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x + 1 if not x[0, 3] else x * np.nan)])
"""
_QUEUE = (
    "dynamic_batching { priority_levels: 3 default_priority_level: 3 default_queue_policy { timeout_action: REJECT"
    " default_timeout_microseconds: 20000000 allow_timeout_override: true max_queue_size: 2 } }"
)
NUMBERS = itertools.count(1)


def write_faulty(repository: Path) -> None:
    """Write the model ``faulty``, whose queue holds two requests."""
    write_python(repository, "faulty", _STEP)
    config = repository / "faulty_step" / "config.pbtxt"
    config.write_text(config.read_text().replace("dynamic_batching { max_queue_delay_microseconds: 0 }", _QUEUE))


def x(held: float = 0, error: float = 0, raises: float = 0, nan: float = 0) -> dict[str, Any]:
    """Inputs of the model."""
    return {"X": np.array([[held, error, raises, nan]], np.float32)}


def note(repository: Path, what: str, number: int) -> Path:
    """The file by which a request tells that it is ``busy``, or is told ``let_go``."""
    return repository / "faulty_step" / f"{what}_{number}"


@contextmanager
def held(model: Model, repository: Path) -> Iterator[Future[Any]]:
    """A request that the model works on until the context ends."""
    number = next(NUMBERS)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model.infer, x(held=number), timeout_s=60)
        try:
            assert wait_until(lambda: note(repository, "busy", number).exists() or call.done())
            yield call
        finally:
            note(repository, "let_go", number).touch()
