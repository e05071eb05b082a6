"""Many inputs, answered in their order; reading them overlaps with inference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from radserve._codec import Counter, Window, check_many, predict_flow, size_of
from radserve.contracts import TextInput
from radserve.errors import ClientClosedError, RadserveError
from radserve.results import Rejection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from radserve._codec import ContractCell, Prediction, Source
    from radserve.aio._session import AsyncSession
    from radserve.options import Priority
    from radserve.results import Progress

_WORKERS = 4


def predict_many(
    session: AsyncSession,
    cell: ContractCell,
    sources: Iterable[Source] | AsyncIterable[Source],
    *,
    frame: int | None,
    priority: Priority | None,
    timeout_s: float | None,
    workers: int | None,
    processes: bool | None,  # noqa: ARG001 - threads alone, so far
    progress: Callable[[Progress], None] | None,
) -> AsyncIterator[Prediction | Rejection]:
    """Do as ``AsyncModel.predict_many`` says; refuses at once what would be refused of every input.

    Raises:
        InputError: ``sources`` is one path or text instead of an iterable of them.
    """
    count = _WORKERS if workers is None else workers
    check_many(sources, count)
    reads_text = isinstance(cell.contract.input, TextInput)
    at_once = asyncio.Semaphore(count)

    async def answer(index: int, source: Source) -> Prediction | Rejection:
        async with at_once:
            try:
                call = session.call(timeout_s, frame=frame, priority=priority)
                return await session.run(predict_flow(cell, source, call))
            except ClientClosedError:
                raise
            except RadserveError as error:
                return Rejection(index=index, error=error)

    def size(source: object) -> int:
        return size_of(source, reads_text=reads_text)

    return _in_order(answer, sources, size, 2 * count, Counter(progress, sources))


async def _in_order(
    answer: Callable[[int, Any], Any],
    sources: Iterable[Any] | AsyncIterable[Any],
    size: Callable[[object], int],
    held: int,
    counter: Counter,
) -> AsyncIterator[Any]:
    window: Window[asyncio.Task[Any]] = Window(items=held)
    inputs = _numbered(sources)
    failure: Exception | None = None
    try:
        while True:
            while failure is None and window.takes_another:
                try:
                    index, source = await anext(inputs)
                except StopAsyncIteration:
                    break
                except Exception as error:  # noqa: BLE001 - the caller's own: raised once the others were answered
                    failure = error
                    break
                window.add(asyncio.create_task(answer(index, source)), size(source))
            if not window:
                break
            given = await window.first
            window.pop()
            counter.count(given)
            yield given
        if failure is not None:
            raise failure
    finally:
        while window:
            window.pop().cancel()


async def _numbered(sources: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[tuple[int, Any]]:
    index = 0
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield index, source
            index += 1
    else:
        for numbered in enumerate(sources):
            yield numbered
