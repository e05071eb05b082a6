"""One run: start the workers, put windows together until it is over, and say what they were."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from radserve.loadtest._crew import Crew
from radserve.loadtest._figures import ErrorCount, Totals
from radserve.loadtest._judge import (
    cost_of,
    figures_of,
    is_stable,
    not_answered,
    not_reached,
    not_stable,
    not_sustained,
)
from radserve.loadtest._messages import AFTER, WARM_UP, Crashed, Lost, Record, Start
from radserve.loadtest._report import Ending, Run
from radserve.loadtest._server import Server, steps_between
from radserve.loadtest._windows import Merged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from radserve._codec import Statistics
    from radserve.contracts import Contract
    from radserve.loadtest._figures import Step, Window
    from radserve.loadtest._messages import Told
    from radserve.loadtest._plan import Plan
    from radserve.options import ClientOptions

_TO_BEGIN_S = 0.1  # from telling the workers to the begin
_LATE_S = 30.0  # after a window should have been told, its worker is stuck


async def measure(
    plan: Plan,
    contract: Contract,
    options: ClientOptions,
    payloads: Sequence[dict[str, NDArray[Any]]],
    *,
    stop: asyncio.Event,
    progress: Callable[[Window | None], None] = lambda _: None,
) -> Run:
    """Put one load on a model.

    Args:
        plan: The load.
        contract: Of the model.
        options: How to reach its servers.
        payloads: Arrays of each request, by tensor name, each of ``plan.inputs_per_request`` rows.
        stop: Set, it ends the run; what was measured until then is kept, and marked.
        progress: Called with None when warm-up begins, then with each window.

    Raises:
        RadserveError: Nothing can be measured: the server does not answer, or no worker can be started.
    """
    server = Server(contract, options)
    try:
        async with Crew(plan, contract, options, payloads) as crew:
            run = _Running(plan, crew, server, progress)
            ending = await run.until_over(stop)
            crew.stop()
            await run.until_silent()
        return run.result(ending)
    finally:
        await server.close()


class _Running:
    """The state of a run: a line for each window, and no more than the last ones in full."""

    def __init__(self, plan: Plan, crew: Crew, server: Server, progress: Callable[[Window | None], None]) -> None:
        self._plan, self._crew, self._server, self._progress = plan, crew, server, progress
        self._told: dict[int, dict[int, Record]] = {}
        self._earlier = Merged()  # all windows but the last one
        self._last: deque[Merged] = deque(maxlen=plan.windows)
        self._windows: list[Window] = []
        self._readings: deque[tuple[Statistics, ...] | None] = deque(maxlen=plan.windows + 1)
        self._first_reading: tuple[Statistics, ...] | None = None
        self._partial: dict[int, Record] = {}
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._messages: dict[str, str] = {}
        self._gone: set[int] = set()
        self._notes: list[str] = []
        self._lost_since = math.inf

    async def until_over(self, stop: asyncio.Event) -> Ending:
        """Begin, and hear the workers until the run is over; says why it is."""
        plan, now = self._plan, time.monotonic()
        warm_up = now + _TO_BEGIN_S
        self._measuring = warm_up + plan.warm_up_s
        self._crew.begin(Start(warm_up, self._measuring))
        self._progress(None)
        stopped = asyncio.create_task(stop.wait())
        reading: asyncio.Task[None] | None = asyncio.create_task(self._read_at_begin())
        heard = asyncio.create_task(self._crew.hear())
        try:
            while True:
                awaited: set[asyncio.Task[Any]] = {heard, stopped, *([reading] if reading else [])}
                limit_s = plan.warm_up_s + plan.window_s + plan.timeout_s + _LATE_S
                done, _ = await asyncio.wait(awaited, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._notes.append(f"the worker processes told nothing for {limit_s:.0f} s")
                    return Ending.WORKER_LOST
                if reading is not None and reading in done:
                    reading = reading.result()
                if heard in done:
                    ending = await self._take(*heard.result())
                    if ending is not None:
                        return ending
                    heard = asyncio.create_task(self._crew.hear())
                if stopped in done:
                    return Ending.INTERRUPTED
        finally:
            for task in (stopped, heard, reading):
                if task is not None:
                    task.cancel()

    async def until_silent(self) -> None:
        """Hear what was under way at the end."""
        while len(self._gone) < self._plan.workers:
            worker, message = await self._crew.hear()
            if message is None:
                self._gone.add(worker)
            elif isinstance(message, Record):
                self._count(worker, message)

    async def _read_at_begin(self) -> None:
        await asyncio.sleep(max(0.0, self._measuring - time.monotonic()))
        self._first_reading = await self._server.read()
        self._readings.append(self._first_reading)

    async def _take(self, worker: int, message: Told | None) -> Ending | None:
        """Go on with what a worker told; says why, if the run is over."""
        if message is None or isinstance(message, Crashed):
            self._gone.update([worker] if message is None else [])
            self._notes.append(message.message if message else "a worker process died")
            return Ending.WORKER_LOST
        if isinstance(message, Lost):
            self._lost_since = message.since
            after_s = max(0.0, message.since - self._measuring)
            self._notes.append(f"the server stopped answering {after_s:.1f} s after measuring began: {message.message}")
            return Ending.SERVER_LOST
        if isinstance(message, Record):
            self._count(worker, message)
            told = self._told.get(message.index, {})
            if message.index != WARM_UP and len(told) == self._plan.workers:
                return await self._window(self._told.pop(message.index))
        return None

    def _count(self, worker: int, record: Record) -> None:
        self._counts.update(due=record.due, sent=record.sent, requests=record.requests, failed=record.failed)
        for failures in record.failures:
            self._errors[failures.type] += failures.count
            self._messages.setdefault(failures.type, failures.message)
        if record.is_whole and record.index != WARM_UP:
            self._told.setdefault(record.index, {})[worker] = record
        elif not record.is_whole and record.index not in (WARM_UP, AFTER):
            self._partial[worker] = record

    async def _window(self, records: dict[int, Record]) -> Ending | None:
        """Go on with a window that all workers have told of."""
        plan, merged = self._plan, Merged.of(records)
        window = merged.window(plan, len(self._windows) * plan.window_s)
        if self._last:
            self._earlier.add(self._last[-1])
        self._last.append(merged)
        self._windows.append(window)
        self._readings.append(await self._server.read())
        self._progress(window)
        if plan.duration_s is None and is_stable(self._windows, plan):
            return Ending.STABLE
        if (len(self._windows) + 1) * plan.window_s > plan.budget_s * (1 + 1e-9):
            return Ending.LIMIT if plan.duration_s is None else Ending.DURATION
        return None

    def result(self, ending: Ending) -> Run:
        """What was measured."""
        plan = self._plan
        merged, windows, steps = self._reported(ending)
        figures, cost = figures_of(merged, windows, plan), cost_of(merged, plan)
        invalid = not_sustained(figures, cost) if figures else ()
        notes = list(self._notes)
        stable = is_stable(self._windows, plan)
        totals = Totals(**self._counts, inferences=self._counts["requests"] * plan.inputs_per_request)
        if figures is None:
            notes.append("no request was answered well in the time measured")
        else:
            notes += [note] if (note := not_reached(figures)) else []
            notes += (
                [not_stable(self._windows, plan)] if not stable and ending in (Ending.LIMIT, Ending.DURATION) else []
            )
            notes += not_answered(windows, totals)
        if self._server.note and ending is not Ending.SERVER_LOST:
            notes.append(self._server.note)
        return Run(
            plan=plan,
            ending=ending,
            figures=None if invalid else figures,
            invalid=invalid,
            notes=tuple(notes),
            is_stable=stable,
            client=cost,
            steps=steps,
            errors=tuple(
                ErrorCount(type=kind, count=count, message=self._messages[kind])
                for kind, count in self._errors.most_common()
            ),
            totals=totals,
            windows=tuple(self._windows),
        )

    def _reported(self, ending: Ending) -> tuple[Merged, list[Window], tuple[Step, ...]]:
        """The windows that figures are of: the last ones, or all of a run that had no end of its own."""
        plan, merged = self._plan, Merged()
        if ending in (Ending.STABLE, Ending.LIMIT):
            for one in self._last:
                merged.add(one)
            return merged, self._windows[-plan.windows :], steps_between(self._readings[0], self._readings[-1])
        windows = list(self._windows)
        if windows and self._lost_since < self._measuring + len(windows) * plan.window_s:
            windows.pop()  # for a part of it there was no server
        elif windows:
            self._earlier.add(self._last[-1])
        if not windows and len(self._partial) == plan.workers:
            merged = Merged.of(self._partial)
            merged.seconds = min(merged.seconds, max(1e-3, self._lost_since - self._measuring))
            return merged, [merged.window(plan, 0.0)], ()
        last = next((reading for reading in reversed(self._readings) if reading), None)
        return self._earlier, windows, steps_between(self._first_reading, last)
