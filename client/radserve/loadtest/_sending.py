"""How a worker sends: some requests in flight, or each when it is due."""

from __future__ import annotations

import asyncio
import math
from itertools import cycle, islice
from typing import IO, TYPE_CHECKING, Any, cast

from radserve._codec import to_answer, to_request
from radserve._codec._flow import Infer
from radserve._transport import AsyncTransport
from radserve.errors import (
    ClientClosedError,
    ModelNotFoundError,
    RadserveError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from radserve.loadtest._messages import LENGTH, Lost, Ready, decode_start, encode
from radserve.loadtest._schedule import poisson
from radserve.loadtest._tally import Tally
from radserve.options import Priority

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve.loadtest._messages import Job, Start, Told

_AWAY = (ServerUnavailableError, ModelNotFoundError, UnauthenticatedError)  # asking again at once is of no use
_AWAY_PAUSE_S = 0.05
_LOST_AFTER_S = 1.0
_DRAIN_S = 5.0
_AT_ONCE = 64


async def work(job: Job, commands: IO[bytes], told: IO[bytes], idle_s: Callable[[], float]) -> None:
    """Send from the begin that the parent names until it closes the pipe; then wait for the answers under way."""

    def tell(message: Told) -> None:
        told.write(encode(message))
        told.flush()

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), commands)
    transport = AsyncTransport(job.options)
    sender = _Sender(job, transport, tell)
    try:
        await sender.check()
        tell(Ready())
        (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        start = decode_start(await reader.readexactly(size))
        running = asyncio.create_task(sender.run(start, idle_s))
        ended = asyncio.create_task(reader.read(1))
        await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
        sender.stop()
        ended.cancel()
        await running
    except asyncio.IncompleteReadError:  # the parent gave up before the begin
        return
    finally:
        await transport.close()


class _Sender:
    """Sends the requests of a job, each built once."""

    def __init__(self, job: Job, transport: AsyncTransport, tell: Any) -> None:  # noqa: ANN401 - takes a message
        plan = job.plan
        self._job, self._transport, self._tell = job, transport, tell
        self._timeout_s = plan.timeout_s
        self._steps = [
            Infer(
                request=to_request(
                    job.contract,
                    arrays,
                    request_id=f"loadtest-{job.worker}-{number}",
                    priority=None if plan.priority is None else Priority(plan.priority),
                    queue_timeout_s=plan.timeout_s,
                )
            )
            for number, arrays in enumerate(job.payloads)
        ]
        first = job.worker * len(self._steps) // plan.workers  # no two workers send the same one at the same time
        self._next_step = islice(cycle(self._steps), first, None)
        self._is_stopping = False
        self._now = asyncio.get_running_loop().time  # CLOCK_MONOTONIC
        self._alarm: asyncio.Future[None] | None = None
        self._away_since: float | None = None

    async def check(self) -> None:
        """Connect, and see that the model answers as its contract says, before anything is measured.

        Raises:
            RadserveError: It does not.
        """
        step = next(self._next_step)
        reply = await self._transport.call(step, timeout_s=self._timeout_s)
        batch_size = len(next(iter(self._job.payloads[0].values())))
        to_answer(self._job.contract, reply.message, batch_size=batch_size, request_id=step.request.id)

    def stop(self) -> None:
        """Send no more."""
        self._is_stopping = True
        self._wake()

    async def run(self, start: Start, idle_s: Callable[[], float]) -> None:
        """Send from the begin until ``stop``, then wait for what is under way."""
        plan, job = self._job.plan, self._job
        arrivals = None if plan.rate is None else Arrivals(job, start.warm_up)
        self._tally = tally = Tally(
            start,
            plan.window_s,
            self._tell,
            due_until=None if arrivals is None else arrivals.count_until,
            busy_s=lambda: self._now() - idle_s(),
        )
        await asyncio.sleep(start.warm_up - self._now())
        edges = asyncio.create_task(self._keep_time())
        if arrivals is None:
            sending = {asyncio.create_task(self._closed_loop()) for _ in range(job.concurrency)}
            while not self._is_stopping:
                await self._sleep_until(math.inf)
        else:
            sending = await self._open_loop(arrivals)
        tally.end(self._now())
        if sending:
            await asyncio.wait(sending, timeout=min(_DRAIN_S, self._timeout_s))
        for task in (*sending, edges):
            task.cancel()
        await asyncio.gather(*sending, edges, return_exceptions=True)
        tally.end(self._now())

    async def _keep_time(self) -> None:
        """Hand over windows in which nothing comes, too."""
        while True:
            await asyncio.sleep(max(0.0, self._tally.edge - self._now()))
            self._tally.roll(self._now())

    async def _closed_loop(self) -> None:
        while not self._is_stopping:
            begin = self._now()
            self._tally.sent(None)
            await self._ask(begin)

    async def _open_loop(self, arrivals: Arrivals) -> set[asyncio.Task[None]]:
        """Send each request when it is due; the tasks that are not done when it stops."""
        sending: set[asyncio.Task[None]] = set()
        limit = self._job.concurrency

        def done(task: asyncio.Task[None]) -> None:
            if len(sending) >= limit:
                self._wake()
            sending.discard(task)

        async def send(due: float, *, was_held: bool) -> None:
            lag_s = None if was_held else self._now() - due
            self._tally.sent(lag_s)
            await self._ask(due, lag_s or 0.0)

        was_held = False
        while not self._is_stopping:
            due = arrivals.next
            if len(sending) >= limit and due <= self._now():
                was_held = True
                await self._sleep_until(math.inf)
            elif due > self._now():
                was_held = False
                await self._sleep_until(due)
            else:
                arrivals.take()
                task = asyncio.create_task(send(due, was_held=was_held))
                sending.add(task)
                task.add_done_callback(done)
                if not len(sending) % _AT_ONCE:
                    await asyncio.sleep(0)  # answers that came must be taken meanwhile
        return sending

    async def _sleep_until(self, time_: float) -> None:
        """Sleep until a time, or until ``_wake`` is called."""
        loop = asyncio.get_running_loop()
        self._alarm = loop.create_future()
        timer = None if time_ == math.inf else loop.call_at(time_, self._wake)
        if not self._is_stopping:
            await self._alarm
        if timer is not None:
            timer.cancel()

    def _wake(self) -> None:
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)

    async def _ask(self, begin: float, lag_s: float | None = None) -> None:
        """Send one request and count what comes of it, from its begin."""
        try:
            await self._transport.call(next(self._next_step), timeout_s=self._timeout_s)
        except ClientClosedError:
            return
        except RadserveError as error:
            now = self._now()
            self._tally.failed(now, type(error).__name__, str(error))
            if isinstance(error, _AWAY):
                self._note_away(now, error)
                await asyncio.sleep(_AWAY_PAUSE_S)
            else:
                self._away_since = None
        else:
            now = self._now()
            self._tally.answered(now, now - begin, lag_s)
            self._away_since = None

    def _note_away(self, now: float, error: RadserveError) -> None:
        if self._away_since is None:
            self._away_since = now
        elif now - self._away_since > _LOST_AFTER_S:
            self._tell(Lost(str(error), self._away_since))
            self.stop()


class Arrivals:
    """When this worker's requests are due, by CLOCK_MONOTONIC.

    Args:
        job: The worker's.
        begin: Of the process.

    Attributes:
        next: When the next one is due.
    """

    def __init__(self, job: Job, begin: float) -> None:
        plan = job.plan
        rate = cast("float", plan.rate) / plan.workers
        # The same times twice: one to send by, one to count by where sending is held back.
        self._to_send, self._to_count = (poisson(rate, seed=plan.seed, worker=job.worker) for _ in range(2))
        self._begin = begin
        self._counted = 0
        self._uncounted = next(self._to_count)
        self.take()

    def take(self) -> None:
        """Go on to the one after the next."""
        self.next = self._begin + next(self._to_send)

    def count_until(self, end: float) -> int:
        """How many were due before a time, which grows from call to call."""
        while self._begin + self._uncounted < end:
            self._counted += 1
            self._uncounted = next(self._to_count)
        return self._counted
