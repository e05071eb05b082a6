"""Several loads in turn: a sweep, or the search for the highest rate that meets a goal."""

from __future__ import annotations

import math
import re
from enum import Enum, auto
from typing import TYPE_CHECKING

from radserve.contracts._tensors import Struct
from radserve.errors import InputError
from radserve.loadtest._histogram import Histogram
from radserve.loadtest._judge import not_reached
from radserve.loadtest._report import Ending, Search
from radserve.loadtest._statistics import rank_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from radserve.loadtest._plan import Plan
    from radserve.loadtest._report import Run

_PRECISION = 0.05
_LEAST, _MOST = 1e-3, 1e6
_DOWN = 1000  # times less than the start is where the search for any rate at all ends
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_GOAL = re.compile(r"p(\d+(?:\.\d+)?)(?:=|<=?)(\d+(?:\.\d+)?)\s*(us|ms|s)")


class Goal(Struct, frozen=True, kw_only=True):
    """How fast answers must be: so many percent of the requests well answered within a time.

    Attributes:
        percent: 99.0 is p99.
        latency_s: The time.
    """

    percent: float
    latency_s: float

    @classmethod
    def of(cls, text: str) -> Goal:
        """Read a goal such as ``p99=50ms``.

        Raises:
            InputError: It is none.
        """
        found = _GOAL.fullmatch(text.strip())
        goal = found and cls(percent=float(found[1]), latency_s=float(found[2]) * _UNITS[found[3]])
        if not goal or not 0 < goal.percent < 100 or not goal.latency_s > 0:  # noqa: PLR2004 - percent
            msg = f"{text} is no goal for the latency: write it as p99=50ms"
            raise InputError(msg)
        return goal

    def latency_of(self, run: Run) -> float:
        """What a run's figures have at this percentile, failures counted as never answered; infinite of none."""
        figures = run.figures
        if figures is None:
            return math.inf
        failed = sum(window.failed for window in run.windows[-figures.windows :])
        rank = rank_of(figures.requests + failed, self.percent)
        return Histogram.decode(figures.histogram).at_ranks([rank])[0] if rank <= figures.requests else math.inf


class _Outcome(Enum):
    MET = auto()
    MISSED = auto()
    GENERATOR = auto()  # the load generator could not sustain the rate
    OVER = auto()  # the run was over before its end


class RateSearch:
    """Decides which rate to try next: doubles or halves it until the answer lies between two rates, then bisects.

    The rate that missed the goal next to the answer is tried again, lest one bad moment is taken for the limit.

    Args:
        goal: What the rate must meet.
        start: The rate to begin with, in requests per second.

    Attributes:
        rate: To try next; None when the search is over.
    """

    def __init__(self, goal: Goal, start: float) -> None:
        self._goal = goal
        self._met: float | None = None
        self._not_met: float | None = None
        self._limit = "the search was over before its end"
        self._confirmed: float | None = None
        self.rate: float | None = _round(min(max(start, _LEAST), _MOST))
        self._least = self.rate / _DOWN

    def tell(self, run: Run) -> None:
        """Go on with the run at ``rate``."""
        rate = self.rate
        if rate is None:
            return
        if run.figures is None and not run.errors and not run.is_partial and self._met is None and self._not_met:
            self.rate = None  # too few requests to tell more than the higher rate did
            return
        outcome, why = self._judged(run)
        if outcome is _Outcome.OVER:
            self._limit, self.rate = f"the search ended at {rate:g} requests/s: {why}", None
            return
        if outcome is _Outcome.MET:
            self._met = rate
            if rate == self._not_met:
                self._not_met = None
        else:
            self._not_met, self._limit = rate, f"at {rate:g} requests/s {why}"
        self.rate = self._next()

    def answer(self, cut_short: str | None = None) -> Search:
        """What is known so far; why no more can be measured, if so."""
        limit = f"the search was cut short: {cut_short}" if cut_short else self._limit
        return Search(percent=self._goal.percent, latency_s=self._goal.latency_s, rate=self._met, limit=limit)

    def _judged(self, run: Run) -> tuple[_Outcome, str]:
        if run.ending in (Ending.INTERRUPTED, Ending.WORKER_LOST, Ending.SERVER_LOST):
            return _Outcome.OVER, run.notes[0] if run.notes else run.ending.value
        if run.invalid:
            return _Outcome.GENERATOR, f"the load generator, not the server, was the limit: {run.invalid[0]}"
        missed = self._missed(run)
        return (_Outcome.MISSED, missed) if missed else (_Outcome.MET, "")

    def _missed(self, run: Run) -> str | None:
        if run.figures is None:
            return "no request was answered well"
        if told := not_reached(run.figures):
            return told
        latency_s = self._goal.latency_of(run)
        if math.isinf(latency_s):
            return f"more than {100 - self._goal.percent:g} % of the requests failed"
        return None if latency_s <= self._goal.latency_s else f"p{self._goal.percent:g} was {1e3 * latency_s:.4g} ms"

    def _next(self) -> float | None:
        met, not_met = self._met, self._not_met
        if not_met is None:
            if met is not None and met >= _MOST:
                self._limit = "no higher rate was tried"
                return None
            return min(_MOST, 2 * (met or 0.0))
        if met is None:
            return _round(not_met / 2) if not_met > self._least else None
        middle = _round(math.sqrt(met * not_met))
        if not_met > met * (1 + _PRECISION) and met < middle < not_met:
            return middle
        if self._confirmed == not_met:
            return None
        self._confirmed = not_met
        return not_met


def _round(rate: float) -> float:
    """To three digits, which are enough for a rate and easier to read."""
    return float(f"{rate:.3g}")


async def climb(search: RateSearch, measure: Callable[[float], Awaitable[Run]]) -> AsyncIterator[Run]:
    """Measure rates until the search is over.

    Args:
        search: Decides which; has the answer when this is over, or was left.
        measure: Puts a rate on the server.
    """
    while (rate := search.rate) is not None:
        run = await measure(rate)
        search.tell(run)
        yield run


async def sweep(plans: Iterable[Plan], measure: Callable[[Plan], Awaitable[Run]]) -> AsyncIterator[Run]:
    """Measure loads in turn, until one is over before its end."""
    for plan in plans:
        run = await measure(plan)
        yield run
        if run.is_partial:
            return


def concurrencies(text: str) -> tuple[int, ...]:
    """Read a list such as ``1,2,4,8``; a number that is there several times is measured as often.

    Raises:
        InputError: It is none.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part[:9]) for part in parts):
        msg = f"{text} is no list of concurrencies: write it as 1,2,4,8"
        raise InputError(msg)
    return tuple(map(int, parts))
