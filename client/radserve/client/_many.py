"""Many inputs, answered in their order; reading them overlaps with inference."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from radserve._codec import Counter, Window, check_many, coalescer_of, numbered, predict_flow, size_of
from radserve._transport import Cancellable
from radserve._workers import Preparing
from radserve.client._meeting import Meeting
from radserve.client._session import run
from radserve.contracts import TextInput
from radserve.errors import ClientClosedError, RadserveError
from radserve.results import Rejection
from radserve.telemetry import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from radserve._codec import CallOptions, ContractCell, Prediction, Prepare, Prepared, Source
    from radserve.client._session import Session
    from radserve.results import Progress

_WORKERS = 8


def predict_many(
    session: Session,
    cell: ContractCell,
    sources: Iterable[Source],
    *,
    start: Callable[[], CallOptions],
    workers: int | None,
    processes: bool | None,
    progress: Callable[[Progress], None] | None,
) -> Iterator[Prediction | Rejection]:
    """Do as ``Model.predict_many`` says; refuses at once what would be refused of every input.

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
    preparing = Preparing(count, processes=processes)
    transport = Cancellable(session.transport)
    coalescer = coalescer_of(session.options)
    meeting = None if coalescer is None else Meeting(coalescer, transport)

    def answer(index: int, source: Source) -> Prediction | Rejection:
        call = start()

        def prepare(step: Prepare) -> Prepared:
            with call.deadline.stopped():
                return preparing(step)

        try:
            with request("predict", model=cell.contract.name):
                return run(predict_flow(cell, source, call, coalescer), transport, prepare, meeting)
        except ClientClosedError:
            raise
        except RadserveError as error:
            return Rejection(index=index, error=error)

    def stop() -> None:
        transport.cancel()
        preparing.close()

    size = partial(size_of, reads_text=reads_text)
    return _in_order(answer, sources, size, count, Counter(progress, sources), stop=stop)


def _in_order(
    answer: Callable[[int, Any], Prediction | Rejection],
    sources: Iterable[Source],
    size: Callable[[object], int],
    workers: int,
    counter: Counter,
    *,
    stop: Callable[[], None],
) -> Iterator[Prediction | Rejection]:
    window: Window[Future[Prediction | Rejection]] = Window(items=2 * workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="radserve")
    failures: list[Exception] = []
    inputs = numbered(sources, failures)
    try:
        while True:
            while window.takes_another and (taken := next(inputs, None)):
                # In the caller's context: what he traces goes on in the thread.
                window.add(pool.submit(copy_context().run, partial(answer, *taken)), size(taken[1]))
            if not window:
                break
            given = window.pop().result()
            counter.count(given)
            yield given
        for failure in failures:
            raise failure
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        stop()
