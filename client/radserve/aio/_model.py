"""A served model, as the caller of an asynchronous client sees it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from radserve import _codec
from radserve.aio._many import predict_many
from radserve.aio._session import prepare_in_thread
from radserve.results import Result

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from typing_extensions import TypeVar as TypeVarWithDefault

    from radserve._codec import Source
    from radserve.aio._session import AsyncSession
    from radserve.contracts import Contract
    from radserve.options import Priority
    from radserve.results import Progress, Rejection, Tensors

    R = TypeVarWithDefault("R", bound=Result, default=Any)
else:
    R = TypeVar("R", bound=Result)


class AsyncModel(Generic[R]):
    """A served model and its contract. Made by ``AsyncClient.model``; as ``Model``, with ``await``.

    Files are read and preprocessed in a thread, so the event loop goes on meanwhile.

    Attributes:
        name: Its public name.
    """

    def __init__(self, session: AsyncSession, contract: Contract) -> None:
        self._session = session
        self._cell = _codec.ContractCell(contract)
        self.name = contract.name

    def __repr__(self) -> str:
        return f"<AsyncModel {self.name} {self.version} at {self._session.url}: {self.contract.task.value}>"

    @property
    def contract(self) -> Contract:
        """The contract in use; read again when the server has published another version."""
        return self._cell.contract

    @property
    def version(self) -> int:
        """The version in use; each answer says by which it was made."""
        return self._cell.contract.version

    async def prepare(self, source: Source, *, frame: int | None = None) -> dict[str, NDArray[Any]]:
        """The arrays that ``predict`` would send; as ``Model.prepare``."""
        step = _codec.Prepare(
            contract=self.contract,
            source=source,
            frame=frame,
            burned_in=self._session.options.burned_in_annotation,
        )
        return (await prepare_in_thread(step)).inputs

    async def predict(
        self,
        source: Source,
        *,
        frame: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        queue_timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> R:
        """Answer one input; as ``Model.predict``. Cancelling the task cancels the call at the server, too.

        An array must stay as it is until it is answered: it is read when it is sent.
        """
        call = self._session.call(
            timeout_s, frame=frame, priority=priority, queue_timeout_s=queue_timeout_s, request_id=request_id
        )
        flow = _codec.predict_flow(self._cell, source, call, self._session.coalescer)
        return cast("R", await self._session.run(flow, model=self.name))

    def predict_many(
        self,
        sources: Iterable[Source] | AsyncIterable[Source],
        *,
        frame: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        queue_timeout_s: float | None = None,
        workers: int | None = None,
        processes: bool | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[R | Rejection]:
        """Answer many inputs, in their order, for ``async for``; as ``Model.predict_many``."""
        start = partial(self._session.call, timeout_s, frame=frame, priority=priority, queue_timeout_s=queue_timeout_s)
        answers = predict_many(
            self._session,
            self._cell,
            sources,
            start=start,
            workers=workers,
            processes=processes,
            progress=progress,
        )
        return cast("AsyncIterator[R | Rejection]", answers)

    async def infer(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        queue_timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Tensors:
        """Send arrays as they are and get arrays back; as ``Model.infer``."""
        call = self._session.call(timeout_s, priority=priority, queue_timeout_s=queue_timeout_s, request_id=request_id)
        return await self._session.run(_codec.infer_flow(self._cell, inputs, call), model=self.name)
