"""What the workers tell of a window, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.loadtest._figures import PERCENTILES, Window
from radserve.loadtest._histogram import Histogram
from radserve.loadtest._statistics import rank_of

if TYPE_CHECKING:
    from radserve.loadtest._messages import Record
    from radserve.loadtest._plan import Plan


class Merged:
    """Records of all workers, of one window or of several.

    Attributes:
        seconds: Length of the windows together.
        due: As in Record, of all workers.
        requests: As in Record.
        failed: As in Record.
        waiting: At the end of the last one.
        latencies: As in Record.
        punctual: As in Record.
        lags: As in Record.
        cpu_s: Processor time by worker.
        busy_s: Time that the event loop was at work, by worker.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.due = self.requests = self.failed = self.waiting = 0
        self.latencies, self.punctual, self.lags = Histogram(), Histogram(), Histogram()
        self.cpu_s: dict[int, float] = {}
        self.busy_s: dict[int, float] = {}

    @classmethod
    def of(cls, records: dict[int, Record]) -> Merged:
        """One window.

        Args:
            records: By worker, of the same window.
        """
        merged = cls()
        merged.seconds = sum(record.seconds for record in records.values()) / len(records)
        for worker, record in records.items():
            merged.due += record.due
            merged.requests += record.requests
            merged.failed += record.failed
            merged.waiting += record.waiting
            merged.latencies.add(Histogram.decode(record.latencies))
            merged.punctual.add(Histogram.decode(record.punctual))
            merged.lags.add(Histogram.decode(record.lags))
            merged.cpu_s[worker] = record.cpu_s
            merged.busy_s[worker] = record.busy_s
        return merged

    def add(self, later: Merged) -> None:
        """Go on with a later window."""
        self.seconds += later.seconds
        self.due += later.due
        self.requests += later.requests
        self.failed += later.failed
        self.waiting = later.waiting
        self.latencies.add(later.latencies)
        self.punctual.add(later.punctual)
        self.lags.add(later.lags)
        for mine, its in ((self.cpu_s, later.cpu_s), (self.busy_s, later.busy_s)):
            for worker, seconds in its.items():
                mine[worker] = mine.get(worker, 0.0) + seconds

    @property
    def busy(self) -> float:
        """Share of the time that the busiest worker's event loop was at work."""
        return max(self.busy_s.values(), default=0.0) / self.seconds if self.seconds else 0.0

    def window(self, plan: Plan, begin_s: float) -> Window:
        """One window in short.

        Args:
            plan: What was asked.
            begin_s: When it began, since the first one did.
        """
        n = self.latencies.n
        percents = (*PERCENTILES, plan.percentile, 100.0)
        told = self.latencies.at_ranks([rank_of(n, percent) for percent in percents]) if n else [None] * len(percents)
        is_open = plan.rate is not None and self.lags.n > 0
        return Window(
            begin_s=begin_s,
            seconds=self.seconds,
            requests=self.requests,
            inferences=self.requests * plan.inputs_per_request,
            failed=self.failed,
            due=self.due,
            waiting=self.waiting,
            p50_s=told[0],
            p90_s=told[1],
            p95_s=told[2],
            p99_s=told[3],
            percentile_s=told[4],
            most_s=told[5],
            lag_s=self.lags.at_ranks([rank_of(self.lags.n, 99)])[0] if is_open else None,
            busy=self.busy,
        )
