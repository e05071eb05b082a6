"""A served model, as the caller sees it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from radserve import _codec
from radserve.errors import ClientClosedError, InputError, ModelNotFoundError, RadserveError
from radserve.results import Rejection, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from typing_extensions import TypeVar as TypeVarWithDefault

    from radserve._codec import Deadline, Source
    from radserve.client._session import Session
    from radserve.contracts import Contract
    from radserve.options import Priority

    R = TypeVarWithDefault("R", bound=Result, default=Any)
else:
    R = TypeVar("R", bound=Result)

T = TypeVar("T")
_WORKERS = 4


class Model(Generic[R]):
    """A served model and its contract. Made by ``Client.model``; thread-safe.

    What it answers follows from its task: a Classification, a Segmentation or a GeneratedText.

    Attributes:
        name: Its public name.
    """

    def __init__(self, session: Session, contract: Contract) -> None:
        self._session = session
        self._contract = contract
        self.name = contract.name

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.contract.version} at {self._session.url}: {self.contract.task.value}>"

    @property
    def contract(self) -> Contract:
        """The contract in use; read again when the server has published another version."""
        return self._contract

    def prepare(self, source: Source, *, frame: int | None = None) -> dict[str, NDArray[Any]]:
        """The arrays that ``predict`` would send, by tensor name, batch axis in front.

        Raises:
            InputError: As ``predict``.
        """
        return _codec.prepare(self._contract, source, frame=frame).inputs

    def predict(
        self,
        source: Source,
        *,
        frame: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> R:
        """Answer one input.

        Args:
            source: A DICOM file (path, bytes or ``pydicom.Dataset``); a report's text;
                or an array: exactly the wire's dtype and shape, or for image
                models modality values ``(rows, columns)``, whose scope is not checked.
            frame: Which frame of a multi-frame image, counted from 0.
            priority: How urgent it is; None leaves the model's default.
            timeout_s: Time budget, all attempts together; None takes the client's.

        Raises:
            InputError: The source cannot be read (DicomError) or is outside the
                model's scope (OutOfScopeError); nothing was sent, except for
                a report that proves too long.
            ServerError: No answer, or none that can be trusted.
            ClientClosedError: The client was closed.
        """
        deadline = self._session.deadline(timeout_s)

        def attempt(contract: Contract) -> R:
            prepared = _codec.prepare(contract, source, frame=frame)
            answer = self._session.infer(contract, prepared.inputs, priority, deadline)
            return cast("R", _codec.to_result(contract, prepared, answer))

        return self._with_current_contract(attempt, deadline)

    def predict_many(
        self,
        sources: Iterable[Source],
        *,
        frame: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        workers: int = _WORKERS,
    ) -> Iterator[R | Rejection]:
        """Answer many inputs, in their order; reading files overlaps with inference.

        At most twice as many inputs as workers are held at a time.

        Args:
            sources: As for ``predict``; taken one by one.
            frame: Which frame of each.
            priority: How urgent they are.
            timeout_s: Time budget of each.
            workers: Inputs worked on at the same time.

        Yields:
            A result or a Rejection for each input; one bad input never stops the rest.

        Raises:
            InputError: ``sources`` is one path or text instead of an iterable of them.
            ClientClosedError: The client was closed.
        """
        self._session.deadline(timeout_s)  # refuses a closed client now, not at the first item
        one = isinstance(sources, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(sources, "file_meta")
        if one or not isinstance(sources, Iterable):
            msg = "predict_many takes an iterable of inputs: use predict() for one"
            raise InputError(msg)
        if workers < 1:
            msg = "workers must be at least 1"
            raise InputError(msg)
        predict = partial(self.predict, frame=frame, priority=priority, timeout_s=timeout_s)
        return _in_order(predict, sources, workers)

    def infer(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Send arrays as they are and get arrays back; for models of ``task: tensors``, and for tests.

        Args:
            inputs: Arrays by tensor name, exactly of the contract's dtypes; batch
                axis in front, unless the model has none.
            priority: How urgent it is.
            timeout_s: Time budget, all attempts together.

        Returns:
            Arrays by tensor name, batch axis in front; read-only.

        Raises:
            InputError: An array is not as the contract says.
            ServerError: No answer, or none that can be trusted.
            ClientClosedError: The client was closed.
        """
        deadline = self._session.deadline(timeout_s)

        def attempt(contract: Contract) -> dict[str, NDArray[Any]]:
            arrays = _codec.check_arrays(contract, inputs)
            return self._session.infer(contract, arrays, priority, deadline).arrays

        return self._with_current_contract(attempt, deadline)

    def _with_current_contract(self, attempt: Callable[[Contract], T], deadline: Deadline) -> T:
        """Try again, once, by a new contract where the server no longer serves the known version."""
        contract = self._contract
        try:
            return attempt(contract)
        except ModelNotFoundError as error:
            missing = error
        current = self._session.read_contract(self.name, deadline)
        if current.version == contract.version:
            raise self._session.gone(missing, deadline)
        self._contract = current
        return attempt(current)


def _in_order(predict: Callable[[Source], R], sources: Iterable[Source], workers: int) -> Iterator[R | Rejection]:
    def answer(index: int, source: Source) -> R | Rejection:
        try:
            return predict(source)
        except ClientClosedError:
            raise
        except RadserveError as error:
            return Rejection(index=index, error=error)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="radserve")
    waiting: deque[Future[R | Rejection]] = deque()
    try:
        for index, source in enumerate(sources):
            waiting.append(pool.submit(answer, index, source))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
