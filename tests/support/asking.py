"""Callers that ask ``echo`` without a pause, each time something else, and look at every answer."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from support.servers import wait_until

from radserve import Client, RadserveError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from radserve_server import Cluster

_CALLERS = 4
DEADLINE_S = 30.0


class Asking:
    """From entering the context to leaving it; leaving it fails where an answer was lost or wrong.

    Attributes:
        answered: How many right answers came.
        worst_s: How long the slowest took.
        lost: What came instead of an answer.
        wrong: Questions that were answered wrongly.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.answered, self.worst_s = 0, 0.0
        self.lost: list[RadserveError] = []
        self.wrong: list[int] = []
        self._numbers = itertools.count()
        self._client = Client(cluster.url, tls=cluster.tls, timeout_s=DEADLINE_S)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._pool = ThreadPoolExecutor(_CALLERS)

    def __enter__(self) -> Self:
        self._running = [self._pool.submit(self._ask_on) for _ in range(_CALLERS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._client.close()
        for one in self._running:
            one.result()
        if error is None:
            assert not self.lost, f"{len(self.lost)} of {self.answered} answers were lost: {self.lost[0]!r}"
            assert not self.wrong, f"{len(self.wrong)} of {self.answered} answers were wrong: {self.wrong[0]}"
            assert self.worst_s < DEADLINE_S

    def see(self, count: int) -> None:
        """Return when that many more were answered."""
        wanted = self.answered + count
        assert wait_until(lambda: self.answered >= wanted or bool(self.lost), 120)

    def _ask_on(self) -> None:
        model = self._client.model("echo")
        while not self._stop.is_set():
            number = next(self._numbers)
            begin = time.monotonic()
            try:
                answer = model.infer({"X": np.full((1, 4), number, np.float32)})["Y"].tolist()
            except RadserveError as error:
                self.lost.append(error)
                continue
            with self._lock:
                self.worst_s = max(self.worst_s, time.monotonic() - begin)
                self.answered += 1
            if answer != [[number + 1] * 4]:
                self.wrong.append(number)
