"""A served model, as the caller sees it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from radserve import _codec
from radserve.client._many import predict_many
from radserve.results import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray
    from typing_extensions import TypeVar as TypeVarWithDefault

    from radserve._codec import Source
    from radserve.client._session import Session
    from radserve.contracts import Contract
    from radserve.options import Priority
    from radserve.results import Progress, Rejection, Tensors

    R = TypeVarWithDefault("R", bound=Result, default=Any)
else:
    R = TypeVar("R", bound=Result)


class Model(Generic[R]):
    """A served model and its contract. Made by ``Client.model``; thread-safe.

    What it answers follows from its task: a Classification, a Segmentation or a GeneratedText.

    Attributes:
        name: Its public name.
    """

    def __init__(self, session: Session, contract: Contract) -> None:
        self._session = session
        self._cell = _codec.ContractCell(contract)
        self.name = contract.name

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.version} at {self._session.url}: {self.contract.task.value}>"

    @property
    def contract(self) -> Contract:
        """The contract in use; read again when the server has published another version."""
        return self._cell.contract

    @property
    def version(self) -> int:
        """The version in use; each answer says by which it was made."""
        return self._cell.contract.version

    def prepare(self, source: Source, *, frame: int | None = None) -> dict[str, NDArray[Any]]:
        """The arrays that ``predict`` would send, by tensor name, batch axis in front.

        Raises:
            InputError: As ``predict``.
        """
        step = _codec.Prepare(
            contract=self.contract,
            source=source,
            frame=frame,
            burned_in=self._session.options.burned_in_annotation,
        )
        return _codec.prepare_step(step).inputs

    def predict(
        self,
        source: Source,
        *,
        frame: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        queue_timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> R:
        """Answer one input.

        Args:
            source: A DICOM file (path, bytes or ``pydicom.Dataset``); for a model of
                studies a folder or a list of those of one series, or a multi-frame file;
                a PNG or JPEG picture; a report's text, or the ``pathlib.Path`` of a UTF-8
                file that holds it (a str is the text itself); or an array: exactly the wire's
                dtype and shape, or for image models modality values ``(rows, columns)``.
                The scope of pictures and arrays is not checked.
            frame: Which frame of a multi-frame image, counted from 0; a model of
                studies then answers that frame alone.
            priority: How urgent it is; None leaves the model's default. A model that was
                exported with ``queue: null`` or ``max_batch_size: 0`` refuses urgent ones: it
                takes all alike.
            timeout_s: Time budget, all attempts together; None takes the client's.
            queue_timeout_s: How long it may wait in the server's queue, if the model's
                queue policy lets a request say so; None as long as ``timeout_s``.
            request_id: What the server's log, the audit log and the result are to call it: at most
                64 letters, digits, ``.``, ``_`` and ``-``, and nothing of a patient's. Such a call
                never shares a request. None makes an id that is no other call's.

        Raises:
            InputError: The source cannot be read (DicomError) or is outside the
                model's scope (OutOfScopeError); nothing was sent, except for
                a report that proves too long.
            ServerError: No answer, or none that can be trusted.
            ClientClosedError: The client was closed.
        """
        call = self._session.call(
            timeout_s, frame=frame, priority=priority, queue_timeout_s=queue_timeout_s, request_id=request_id
        )
        return cast("R", self._session.run(_codec.predict_flow(self._cell, source, call), model=self.name))

    def predict_many(
        self,
        sources: Iterable[Source],
        *,
        frame: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        queue_timeout_s: float | None = None,
        workers: int | None = None,
        processes: bool | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[R | Rejection]:
        """Answer many inputs, in their order; reading files overlaps with inference.

        At most twice as many inputs as workers, and 256 MiB of them, are held at a time.

        Args:
            sources: As for ``predict``; taken one by one. Arrays are copied then, so that an
                iterator may fill the same one again and again.
            frame: Which frame of each.
            priority: How urgent they are.
            timeout_s: Time budget of each, from when it has been read.
            queue_timeout_s: As for ``predict``, of each.
            workers: Inputs worked on at the same time.
            processes: Whether to read files in other processes; None where it pays.
            progress: Called with each answer, by the thread that takes it.

        Yields:
            A result or a Rejection for each input; one bad input never stops the rest.
            ``zip(paths, model.predict_many(paths))`` goes through both together.

        Raises:
            InputError: ``sources`` is one path or text instead of an iterable of them.
            ClientClosedError: The client was closed.
        """
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
        return cast("Iterator[R | Rejection]", answers)

    def infer(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        queue_timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Tensors:
        """Send arrays as they are and get arrays back; for models of ``task: tensors``, and for tests.

        Args:
            inputs: Arrays by tensor name, exactly of the contract's dtypes; batch
                axis in front, unless the model has none.
            priority: How urgent it is.
            timeout_s: Time budget, all attempts together.
            queue_timeout_s: As for ``predict``.
            request_id: As for ``predict``.

        Returns:
            Arrays by tensor name, batch axis in front, and which version gave them.

        Raises:
            InputError: An array is not as the contract says.
            ServerError: No answer, or none that can be trusted.
            ClientClosedError: The client was closed.
        """
        call = self._session.call(timeout_s, priority=priority, queue_timeout_s=queue_timeout_s, request_id=request_id)
        return self._session.run(_codec.infer_flow(self._cell, inputs, call), model=self.name)
