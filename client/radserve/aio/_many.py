"""Many inputs, answered in their order; reading them overlaps with inference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from functools import partial
from typing import TYPE_CHECKING, Any

from radserve._codec import Counter, Window, check_many, is_prepared_at_once, kept, numbered, predict_flow, size_of
from radserve._workers import Preparing, StartError
from radserve.contracts import TextInput
from radserve.errors import ClientClosedError, RadserveError
from radserve.results import Rejection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable

    from radserve._codec import CallOptions, ContractCell, Prediction, Prepare, Prepared, Source
    from radserve.aio._session import AsyncSession
    from radserve.results import Progress

_WORKERS = 8


def predict_many(
    session: AsyncSession,
    cell: ContractCell,
    sources: Iterable[Source] | AsyncIterable[Source],
    *,
    start: Callable[[], CallOptions],
    workers: int | None,
    processes: bool | None,
    progress: Callable[[Progress], None] | None,
) -> AsyncIterator[Prediction | Rejection]:
    """Do as ``AsyncModel.predict_many`` says; refuses at once what would be refused of every input.

    Args:
        session: The client's.
        cell: The contract in use.
        sources: The inputs.
        start: Makes the options of each one's call.
        workers: Inputs worked on at the same time.
        processes: Whether to read files in other processes.
        progress: Called with each answer.

    Raises:
        InputError: ``sources`` is one path or text instead of an iterable of them, or a time is not one.
        ClientClosedError: The client was closed.
    """
    start()
    count = _WORKERS if workers is None else workers
    check_many(sources, count)
    reads_text = isinstance(cell.contract.input, TextInput)
    at_once = asyncio.Semaphore(count)
    preparing = Preparing(count, processes=processes)
    turn = asyncio.Semaphore(preparing.at_once)

    async def prepare(step: Prepare) -> Prepared:
        if is_prepared_at_once(step):
            return preparing.here(step)
        if (submitted := preparing.submit(step)) is not None:
            try:
                return await asyncio.wrap_future(submitted)
            except StartError:
                preparing.stay_here()
        return await asyncio.to_thread(preparing.here, step)

    async def answer(index: int, source: Source) -> Prediction | Rejection:
        async with at_once:
            call = start()

            async def prepare_in_turn(step: Prepare) -> Prepared:
                with call.deadline.stopped():
                    async with turn:
                        return await prepare(step)

            try:
                flow = predict_flow(cell, source, call, session.coalescer)
                return await session.run(flow, prepare_in_turn, model=cell.contract.name)
            except ClientClosedError:
                raise
            except RadserveError as error:
                return Rejection(index=index, error=error)

    size = partial(size_of, reads_text=reads_text)
    return _in_order(answer, sources, size, count, Counter(progress, sources), stop=preparing.close)


async def _in_order(
    answer: Callable[[int, Any], Coroutine[Any, Any, Prediction | Rejection]],
    sources: Iterable[Source] | AsyncIterable[Source],
    size: Callable[[object], int],
    workers: int,
    counter: Counter,
    *,
    stop: Callable[[], None],
) -> AsyncIterator[Prediction | Rejection]:
    window: Window[asyncio.Task[Prediction | Rejection]] = Window(items=2 * workers)
    failures: list[Exception] = []
    inputs = _numbered(sources, failures)
    taking: asyncio.Future[tuple[int, Source] | None] | None = None
    try:
        while True:
            while window.takes_another:
                taking = taking or asyncio.ensure_future(anext(inputs, None))
                await asyncio.sleep(0)  # an input that is there comes before an answer
                awaited: set[asyncio.Future[Any]] = {taking, window.first} if window else {taking}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    break  # inputs that come slowly hold back no answer
                taken, taking = taking.result(), None
                if taken is None:
                    break
                window.add(asyncio.create_task(answer(*taken)), size(taken[1]))
            if not window:
                break
            given = await window.first
            window.pop()
            counter.count(given)
            yield given
        for failure in failures:
            raise failure
    finally:
        stop()
        running = [window.pop() for _ in range(len(window))] + ([taking] if taking else [])
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _numbered(
    sources: Iterable[Source] | AsyncIterable[Source], failures: list[Exception]
) -> AsyncIterator[tuple[int, Source]]:
    """As ``numbered``, of asynchronous iterables, too."""
    if not isinstance(sources, AsyncIterable):
        for pair in numbered(sources, failures):
            yield pair
        return
    index = 0
    try:
        async for source in sources:
            yield index, kept(source)
            index += 1
    except Exception as error:  # noqa: BLE001 - the caller's own: raised again by who iterates
        failures.append(error)
