"""The synchronous client: a shell around the codec and the transport."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar, overload

from radserve import _codec
from radserve.client._model import Model
from radserve.client._session import Session
from radserve.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from radserve.results import Result

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from radserve.errors import RadserveError
    from radserve.options import TLS

R = TypeVar("R", bound=Result)
DEFAULT_TIMEOUT_S = 30.0
_POLL_S = 0.1


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
        self._session = Session(url, tls=tls, insecure=insecure, timeout_s=timeout_s)
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.url}{' (closed)' if self._session.transport.is_closed else ''}>"

    def close(self) -> None:
        """Close the connection; calls in flight end with ClientClosedError."""
        self._session.transport.close()

    @overload
    def model(self, name: str, *, timeout_s: float | None = None) -> Model[Any]: ...

    @overload
    def model(self, name: str, result: type[R], *, timeout_s: float | None = None) -> Model[R]: ...

    def model(self, name: str, result: type[Result] | None = None, *, timeout_s: float | None = None) -> Model[Any]:
        """A model, by its public name; reads its contract from the server.

        Args:
            name: Its public name.
            result: What the caller expects it to answer, for example ``Segmentation``:
                checked here, and known to type checkers; None takes any.
            timeout_s: Time budget.

        Raises:
            InputError: The model answers something else than ``result``.
            ModelNotFoundError: The server does not serve it.
            ContractError: It has no contract, or one that this SDK cannot honour.
            ServerError: The server does not answer.
        """
        contract = self._session.read_contract(name, self._session.deadline(timeout_s))
        if result is not None and not issubclass(_codec.result_type(contract), result):
            msg = f"model {name} is of task {contract.task.value}: it answers no {result.__name__}"
            raise InputError(msg)
        return Model(self._session, contract)

    def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """All public models of the server, by name.

        Raises:
            UnauthenticatedError: The server restricts the list of its models:
                ask for a model by its name.
            ContractError: A model has a contract that this SDK cannot honour.
            ServerError: The server does not answer.
        """
        deadline = self._session.deadline(timeout_s)
        found = []
        for name in self._session.transport.model_names(timeout_s=deadline.remaining_s()):
            try:
                config = self._session.transport.model_config(name, timeout_s=deadline.remaining_s())
            except ModelNotFoundError:  # unloaded since it was listed
                continue
            contract = _codec.read_contract(config)
            if contract is not None:
                found.append(Model(self._session, contract))
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
        deadline = self._session.deadline(timeout_s)
        if name is not None:
            models: tuple[Model, ...] = (Model(self._session, self._session.read_contract(name, deadline)),)
        else:
            models = self.models(timeout_s=deadline.remaining_s())
        if not models:
            msg = "the server serves no public model: publish one to its repository"
            raise ModelNotFoundError(msg)
        taken_s = {}
        for model in models:
            begin = time.perf_counter()
            self._session.infer(model.contract, _codec.canary(model.contract), None, deadline)
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
        deadline = self._session.deadline(timeout_s)
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
