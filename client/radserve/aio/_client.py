"""The asynchronous client: the same shell as ``radserve.client``, with ``await``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from radserve import _codec
from radserve.aio._model import AsyncModel
from radserve.aio._session import AsyncSession
from radserve.results import Result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from radserve.audit import AuditLog
    from radserve.options import TLS, ClientOptions

R = TypeVar("R", bound=Result)


class AsyncClient:
    """Connections to one Triton, or to several that serve the same, from one event loop.

    As ``Client``, with ``await`` and ``async with``. Cancelling a task cancels
    its call at the server, too.

    Args:
        url: As for ``Client``.
        tls: As for ``Client``.
        insecure: As for ``Client``.
        timeout_s: As for ``Client``.
        audit: As for ``Client``.
        options: As for ``Client``.

    Raises:
        InputError: As ``Client``.
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
        self._session = AsyncSession(
            _codec.client_options(url, tls=tls, insecure=insecure, timeout_s=timeout_s, audit=audit, options=options)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient of {self.url}{' (closed)' if self._session.transport.is_closed else ''}>"

    @property
    def url(self) -> str:
        """``host:port`` of its servers."""
        return self._session.url

    async def close(self) -> None:
        """Close the connections; calls in flight end with ClientClosedError."""
        await self._session.close()

    @overload
    async def model(self, name: str, *, timeout_s: float | None = None) -> AsyncModel[Any]: ...

    @overload
    async def model(self, name: str, result: type[R], *, timeout_s: float | None = None) -> AsyncModel[R]: ...

    async def model(
        self, name: str, result: type[Result] | None = None, *, timeout_s: float | None = None
    ) -> AsyncModel[Any]:
        """A model, by its public name; as ``Client.model``."""
        call = self._session.call(timeout_s)
        return AsyncModel(self._session, await self._session.run(_codec.contract_flow(name, call, result)))

    async def models(self, *, timeout_s: float | None = None) -> tuple[AsyncModel, ...]:
        """All public models of the server, by name; as ``Client.models``."""
        contracts = await self._session.run(_codec.models_flow(self._session.call(timeout_s)))
        return tuple(AsyncModel(self._session, contract) for contract in contracts)

    async def health(self, name: str | None = None, *, timeout_s: float | None = None) -> dict[str, float]:
        """Run a real inference on harmless data; as ``Client.health``."""
        return await self._session.run(_codec.health_flow(name, self._session.call(timeout_s)))

    async def wait_until_ready(self, timeout_s: float, *, name: str | None = None) -> None:
        """Wait until ``health`` succeeds; as ``Client.wait_until_ready``."""
        await self._session.run(_codec.wait_flow(name, self._session.call(timeout_s)))
