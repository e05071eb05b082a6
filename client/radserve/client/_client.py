"""The synchronous client: a shell around the codec and the transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from radserve import _codec
from radserve.client._model import Model
from radserve.client._session import Session
from radserve.results import Result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from radserve.audit import AuditLog
    from radserve.options import TLS, ClientOptions

R = TypeVar("R", bound=Result)


class Client:
    """Connections to one Triton, or to several that serve the same; thread-safe, to be closed or used as a context.

    What is not given here holds as ``options`` say; without them, as the
    environment (``RADSERVE_*``) and the configuration file say.

    Args:
        url: ``host:port`` of Triton's gRPC service; several are used in turn, and one that fails is left out.
        tls: Certificates; None means plain text, which only loopback may have.
        insecure: Allow plain text to another host: patient data would travel readable.
        timeout_s: Time budget of a call that names none, all its attempts together; 30 s unless told.
        audit: Where each question is noted before it is answered.
        options: All options there are.

    Raises:
        InputError: An address is missing, malformed, or not encrypted and not loopback, or an option is malformed.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        tls: TLS | None = None,
        insecure: bool | None = None,
        timeout_s: float | None = None,
        audit: AuditLog | None = None,
        options: ClientOptions | None = None,
    ) -> None:
        self._session = Session(
            _codec.client_options(url, tls=tls, insecure=insecure, timeout_s=timeout_s, audit=audit, options=options)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.url}{' (closed)' if self._session.transport.is_closed else ''}>"

    @property
    def url(self) -> str:
        """``host:port`` of its servers."""
        return self._session.url

    def close(self) -> None:
        """Close the connections; calls in flight end with ClientClosedError."""
        self._session.close()

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
        call = self._session.call(timeout_s)
        return Model(self._session, self._session.run(_codec.contract_flow(name, call, result)))

    def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """All public models of the server, by name.

        One whose contract this SDK cannot honour is left out, with a line in
        the log ``radserve``; ``model`` says what is wrong with it.

        Raises:
            UnauthenticatedError: The server restricts the list of its models:
                ask for a model by its name.
            ContractError: There are models, none with a contract that this SDK can honour.
            ServerError: The server does not answer.
        """
        contracts = self._session.run(_codec.models_flow(self._session.call(timeout_s)))
        return tuple(Model(self._session, contract) for contract in contracts)

    def health(self, name: str | None = None, *, timeout_s: float | None = None) -> dict[str, float]:
        """Run a real inference on harmless data, of one model or of all that ``models`` gives.

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
        return self._session.run(_codec.health_flow(name, self._session.call(timeout_s)))

    def wait_until_ready(self, timeout_s: float, *, name: str | None = None) -> None:
        """Wait until ``health`` succeeds.

        Args:
            timeout_s: How long at most.
            name: A public model's name; None for all.

        Raises:
            DeadlineExceededError: It did not, and says what was wrong at last.
            RadserveError: Waiting will not help.
        """
        self._session.run(_codec.wait_flow(name, self._session.call(timeout_s)))
