"""Well-behaved clients of a gateway, while somebody else misbehaves."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from support.envoys import tls
from support.figures import tell
from support.servers import wait_until

from radserve import Client

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self


class Bystanders:
    """Threads that ask ``echo`` again and again; leaving the context raises what one of them met.

    Args:
        url: Of the gateway.
        folder: With their certificate.
        count: How many.
        timeout_s: How long an answer may take.

    Attributes:
        answered: How many answers came, all of them right.
        slowest_s: Of them.
    """

    def __init__(self, url: str, folder: Path, *, count: int = 2, timeout_s: float = 10) -> None:
        self.answered = 0
        self.slowest_s = 0.0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._client = Client(url, tls=tls(folder, "another"), timeout_s=timeout_s)
        self._pool = ThreadPoolExecutor(count)
        self._running: list[Future[None]] = [self._pool.submit(self._ask_on, first) for first in range(count)]

    def _ask_on(self, value: int) -> None:
        model = self._client.model("echo")
        while not self._stop.is_set():
            begin = time.monotonic()
            answer = model.infer({"X": np.full((1, 4), value, np.float32)})["Y"].tolist()
            took = time.monotonic() - begin
            assert answer == [[value + 1] * 4]
            with self._lock:
                self.answered += 1
                self.slowest_s = max(self.slowest_s, took)
            value += 1

    def see(self, count: int = 50) -> None:
        """Wait until so many more answers came, or one of them failed."""
        wanted = self.answered + count
        assert wait_until(lambda: self.answered >= wanted or any(one.done() for one in self._running))

    def __enter__(self) -> Self:
        self.see()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        try:
            for one in self._running:
                one.result(60)
        finally:
            self._pool.shutdown()
            self._client.close()
        tell(answers_beside=self.answered, slowest_s=self.slowest_s)
