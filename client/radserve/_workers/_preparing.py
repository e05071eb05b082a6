"""Prepare many inputs: in threads of this process, or in worker processes where that pays."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from radserve._codec import prepare_step
from radserve._workers._pool import StartError, Workers
from radserve.contracts import TextInput

if TYPE_CHECKING:
    from concurrent.futures import Future

    from radserve._codec import Prepare, Prepared

START_S = 1.0  # processor time to start a worker, about
LEAST_S = 0.004  # processor time for an input from which the way to a worker and back counts little


class Preparing:
    """Carries out the Prepare steps of one ``predict_many``.

    Python prepares one input at a time however many threads there are. Other
    processes do not wait for each other, but take about a second to start: they
    are started when as much time has been spent without them, so that at worst
    twice the time is.

    Args:
        processes: Whether to use other processes; None where it pays.
        workers: Most inputs prepared at the same time.

    Attributes:
        at_once: How many are, at most: more than there are processors only take the
            interpreter from each other, and from those that wait for answers.
    """

    def __init__(self, workers: int, *, processes: bool | None) -> None:
        self.at_once = min(workers, len(os.sched_getaffinity(0)))
        self._wanted = processes
        self._lock = threading.Lock()
        self._turn = threading.Semaphore(self.at_once)
        self._workers: Workers | None = None
        self._spent_s = 0.0
        self._prepared = 0

    @property
    def uses_processes(self) -> bool:
        """Whether there are worker processes now."""
        return self._workers is not None

    def submit(self, step: Prepare) -> Future[Prepared] | None:
        """Have a worker process carry out a step; None where this process had better do it itself."""
        sources = step.source if isinstance(step.source, list | tuple) else (step.source,)
        is_file = all(isinstance(one, str | os.PathLike | bytes) for one in sources)
        if isinstance(step.contract.input, TextInput) or not is_file:
            return None  # nothing to decode, or costly to hand over
        with self._lock:
            if self._workers is None and self._pays():
                self._workers = Workers(self.at_once)
            return None if self._workers is None or self._wanted is False else self._workers.submit(step)

    def here(self, step: Prepare) -> Prepared:
        """Carry out a step in this thread."""
        begin = time.thread_time()
        try:
            return prepare_step(step)
        finally:
            with self._lock:
                self._spent_s += time.thread_time() - begin
                self._prepared += 1

    def __call__(self, step: Prepare) -> Prepared:
        """Carry out a step when it is its turn, and wait for it."""
        with self._turn:
            submitted = self.submit(step)
            if submitted is not None:
                try:
                    return submitted.result()
                except StartError:
                    self.stay_here()
            return self.here(step)

    def stay_here(self) -> None:
        """Go without worker processes: none can be started."""
        self._wanted = False

    def close(self) -> None:
        """End the worker processes."""
        with self._lock:
            workers, self._workers, self._wanted = self._workers, None, False
        if workers is not None:
            workers.close()

    def _pays(self) -> bool:
        if self._wanted is not None:
            return self._wanted
        return self.at_once > 1 and self._spent_s > max(START_S, LEAST_S * self._prepared)
