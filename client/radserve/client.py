"""The synchronous client: a shell around the codec and the transport."""

from __future__ import annotations

import math
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from radserve import _codec
from radserve._transport import Transport
from radserve.errors import (
    ClientClosedError,
    ContractError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    RadserveError,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from radserve.results import Rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from radserve._codec import Source
    from radserve.contracts import Contract
    from radserve.options import TLS, Priority
    from radserve.results import Classification

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 30.0
_WORKERS = 4
_POLL_S = 0.1


class _Deadline:
    """One time budget over everything that a call does."""

    def __init__(self, timeout_s: float) -> None:
        if not (isinstance(timeout_s, int | float) and math.isfinite(timeout_s) and timeout_s > 0):
            msg = "timeout_s must be a finite number of seconds above 0"
            raise InputError(msg)
        self.timeout_s = float(timeout_s)
        self._end = time.monotonic() + self.timeout_s

    def remaining_s(self, model: str | None = None) -> float:
        """Seconds left.

        Raises:
            DeadlineExceededError: None.
        """
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            msg = f"the {self.timeout_s:g} s allowed are over: allow more with timeout_s"
            raise DeadlineExceededError(msg, model=model)
        return remaining

    def remaining_or_zero_s(self) -> float:
        """Seconds left, 0 where there are none."""
        return max(0.0, self._end - time.monotonic())


class Client:
    """A connection to one Triton; thread-safe, to be closed or used as a context manager.

    Args:
        url: ``host:port`` of Triton's gRPC service.
        tls: Certificates; None means plain text, which only loopback may have.
        insecure: Allow plain text to another host: patient data would travel readable.
        timeout_s: Time budget of a call that names none, all its attempts together.

    Raises:
        InputError: The address is malformed, or not encrypted and not loopback.
    """

    def __init__(
        self, url: str, *, tls: TLS | None = None, insecure: bool = False, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._timeout_s = _Deadline(timeout_s).timeout_s
        self._transport = Transport(url, tls=tls, insecure=insecure)
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.url}{' (closed)' if self._transport.is_closed else ''}>"

    def close(self) -> None:
        """Close the connection; calls in flight end with ClientClosedError."""
        self._transport.close()

    def model(self, name: str, *, timeout_s: float | None = None) -> Model:
        """A model, by its public name; reads its contract from the server.

        Raises:
            ModelNotFoundError: The server does not serve it.
            ContractError: It has no contract, or one that this SDK cannot honour.
            ServerError: The server does not answer.
        """
        return Model(self, self._read_contract(name, self._deadline(timeout_s)))

    def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """All public models of the server, by name.

        Raises:
            UnauthenticatedError: The server restricts the list of its models:
                ask for a model by its name.
            ContractError: A model has a contract that this SDK cannot honour.
            ServerError: The server does not answer.
        """
        deadline = self._deadline(timeout_s)
        found = []
        for name in self._transport.model_names(timeout_s=deadline.remaining_s()):
            try:
                config = self._transport.model_config(name, timeout_s=deadline.remaining_s())
            except ModelNotFoundError:  # unloaded since it was listed
                continue
            contract = _codec.read_contract(config)
            if contract is not None:
                found.append(Model(self, contract))
        return tuple(found)

    def health(self, name: str | None = None, *, timeout_s: float | None = None) -> dict[str, float]:
        """Run a real inference on harmless data, of one model or of all public ones.

        Triton's own readiness says nothing about a model whose process died.

        Args:
            name: A public model's name; None for all.
            timeout_s: Time budget for all of them together.

        Returns:
            Seconds that each model took, by its name.

        Raises:
            ModelNotFoundError: There is no such model, or no public model at all.
            ServerError: The server or a model did not answer as its contract says.
        """
        deadline = self._deadline(timeout_s)
        if name is not None:
            models: tuple[Model, ...] = (Model(self, self._read_contract(name, deadline)),)
        else:
            models = self.models(timeout_s=deadline.remaining_s())
        if not models:
            msg = "the server serves no public model: publish one to its repository"
            raise ModelNotFoundError(msg)
        taken_s = {}
        for model in models:
            begin = time.perf_counter()
            self._infer(model.contract, _codec.canary(model.contract), None, deadline)
            taken_s[model.name] = time.perf_counter() - begin
        return taken_s

    def wait_until_ready(self, timeout_s: float, *, name: str | None = None) -> None:
        """Wait until ``health`` succeeds.

        Args:
            timeout_s: How long at most.
            name: A public model's name; None for all.

        Raises:
            DeadlineExceededError: It did not, and says what was wrong at last.
            RadserveError: Waiting will not help.
        """
        deadline = self._deadline(timeout_s)
        last: RadserveError | None = None
        while True:
            try:
                self.health(name, timeout_s=deadline.remaining_s())
            except (ServerUnavailableError, ServerOverloadedError, ModelNotFoundError, InferenceFailedError) as error:
                last = error
            except DeadlineExceededError as error:
                last = last or error
                msg = f"the server was not ready within {timeout_s:g} s: {last}"
                raise DeadlineExceededError(msg, model=name, code=error.code) from None
            else:
                return
            time.sleep(min(_POLL_S, deadline.remaining_or_zero_s()))

    def _deadline(self, timeout_s: float | None) -> _Deadline:
        if self._transport.is_closed:
            msg = "the client was closed: make a new Client"
            raise ClientClosedError(msg)
        return _Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def _read_contract(self, name: str, deadline: _Deadline) -> Contract:
        if not isinstance(name, str) or not name:
            msg = "name the model as the server knows it, for example client.model('chest_xray')"
            raise InputError(msg)
        try:
            config = self._transport.model_config(name, timeout_s=deadline.remaining_s(name))
        except ModelNotFoundError as error:
            raise self._gone(error, deadline) from None
        contract = _codec.read_contract(config)
        if contract is None:
            msg = f"model {name} has no radserve contract: name a public model, see 'radserve models'"
            raise ContractError(msg)
        return contract

    def _gone(self, missing: ModelNotFoundError, deadline: _Deadline) -> ServerError:
        """Tell a model that is not served from a server that is shutting down and denies all of them."""
        if self._transport.is_ready(timeout_s=deadline.remaining_s(missing.model)):
            return missing
        msg = f"model {missing.model} is being loaded, or the server is shutting down: try again later or elsewhere"
        return ServerUnavailableError(msg, model=missing.model, version=missing.version, code=missing.code)

    def _infer(
        self,
        contract: Contract,
        arrays: Mapping[str, NDArray[Any]],
        priority: Priority | None,
        deadline: _Deadline,
    ) -> _codec.Answer:
        remaining_s = deadline.remaining_s(contract.name)
        request = _codec.to_request(
            contract, arrays, request_id=uuid.uuid4().hex, priority=priority, queue_timeout_s=remaining_s
        )
        response = self._transport.infer(request, timeout_s=remaining_s)
        return _codec.to_answer(contract, response, batch_size=len(next(iter(arrays.values()))))


class Model:
    """A served model and its contract. Made by ``Client.model``; thread-safe.

    Attributes:
        name: Its public name.
    """

    def __init__(self, client: Client, contract: Contract) -> None:
        self._client = client
        self._contract = contract
        self.name = contract.name

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.contract.version} at {self._client.url}: {self.contract.task.value}>"

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
    ) -> Classification:
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
        deadline = self._client._deadline(timeout_s)  # noqa: SLF001 - Model and Client are one shell

        def attempt(contract: Contract) -> Classification:
            prepared = _codec.prepare(contract, source, frame=frame)
            answer = self._client._infer(contract, prepared.inputs, priority, deadline)  # noqa: SLF001 - as above
            return _codec.to_result(contract, prepared, answer)

        return self._with_current_contract(attempt, deadline)

    def predict_many(
        self,
        sources: Iterable[Source],
        *,
        frame: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        workers: int = _WORKERS,
    ) -> Iterator[Classification | Rejection]:
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
        self._client._deadline(timeout_s)  # noqa: SLF001 - refuses a closed client now, not at the first item
        if isinstance(sources, str | bytes):
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
        deadline = self._client._deadline(timeout_s)  # noqa: SLF001 - Model and Client are one shell

        def attempt(contract: Contract) -> dict[str, NDArray[Any]]:
            arrays = _codec.check_arrays(contract, inputs)
            return self._client._infer(contract, arrays, priority, deadline).arrays  # noqa: SLF001 - as above

        return self._with_current_contract(attempt, deadline)

    def _with_current_contract(self, attempt: Callable[[Contract], T], deadline: _Deadline) -> T:
        """Try again, once, by a new contract where the server no longer serves the known version."""
        contract = self._contract
        try:
            return attempt(contract)
        except ModelNotFoundError as error:
            missing = error
        current = self._client._read_contract(self.name, deadline)  # noqa: SLF001 - Model and Client are one shell
        if current.version == contract.version:
            raise self._client._gone(missing, deadline)  # noqa: SLF001 - as above
        self._contract = current
        return attempt(current)


def _in_order(
    predict: Callable[[Source], Classification], sources: Iterable[Source], workers: int
) -> Iterator[Classification | Rejection]:
    def answer(index: int, source: Source) -> Classification | Rejection:
        try:
            return predict(source)
        except ClientClosedError:
            raise
        except RadserveError as error:
            return Rejection(index=index, error=error)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="radserve")
    waiting: deque[Future[Classification | Rejection]] = deque()
    try:
        for index, source in enumerate(sources):
            waiting.append(pool.submit(answer, index, source))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
