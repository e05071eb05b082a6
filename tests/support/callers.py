"""Callers of a model that is published anew while they call it."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from radserve import Classification, Client
from radserve.contracts import PROBABILITIES

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from radserve import TLS

CALLERS = 3
SEEN_BEFORE_GOING_ON = 120


class Callers:
    """Threads that send the same file again and again; leaving the context raises what one of them met.

    Attributes:
        expected: What each version that was served at a ``see`` must answer.
        counts: How many answers each version gave.
    """

    def __init__(self, url: str, name: str, source: Path, tls: TLS | None = None) -> None:
        self.expected: dict[int, dict[str, float]] = {}
        self.counts: Counter[int] = Counter()
        self._name, self._source = name, source
        self._answers: list[Classification] = []
        self._stop, self._more = threading.Event(), threading.Condition()
        self._client = Client(url, tls=tls, timeout_s=20)
        self._pool = ThreadPoolExecutor(CALLERS)
        self._running = [self._pool.submit(self._call) for _ in range(CALLERS)]

    def _call(self) -> None:
        model = self._client.model(self._name, Classification)
        while not self._stop.is_set():
            answer = model.predict(self._source)
            with self._more:
                self._answers.append(answer)
                self.counts[answer.version] += 1
                self._more.notify_all()

    def see(self) -> int:
        """Note what the version served now must answer, and wait until the callers have seen enough of it.

        Returns:
            The version.
        """
        model = self._client.model(self._name)
        (row,) = model.infer(model.prepare(self._source))[PROBABILITIES]
        version = model.contract.version
        names = [one.name for one in model.contract.labels]
        self.expected[version] = dict(zip(names, map(float, row), strict=True))
        with self._more:
            wanted = self.counts[version] + SEEN_BEFORE_GOING_ON
            self._more.wait_for(
                lambda: self.counts[version] >= wanted or any(one.done() for one in self._running), timeout=60
            )
            assert self.counts[version] >= wanted, f"of version {version} too few answers came: {self.counts}"
        return version

    def check(self) -> None:
        """Every answer is that of the version it reports."""
        for answer in self._answers:
            found = {finding.label: finding.probability for finding in answer.findings}
            assert found == pytest.approx(self.expected[answer.version], abs=1e-6), answer.version

    def __enter__(self) -> Self:
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
