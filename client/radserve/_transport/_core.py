"""One attempt of a call, without waiting: which server, what is sent with it, what its failure means.

The synchronous and the asynchronous transport carry out what ``Core.attempt``
yields, and send what came of it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radserve._codec._flow import Infer, IsReady, Reply
from radserve._codec._plain import Plain
from radserve._transport._calls import READY, Failure, Rpc, read, stub_on, to_rpc
from radserve._transport._channel import check_address, open_channel
from radserve._transport._endpoints import Pool
from radserve._transport._errors import translate
from radserve._transport._shared_memory import SharedMemory, unregister
from radserve.errors import (
    ClientClosedError,
    DeadlineExceededError,
    InputError,
    Retry,
    ServerUnavailableError,
    UnauthenticatedError,
)
from radserve.telemetry import traceparent

if TYPE_CHECKING:
    from collections.abc import Generator

    from radserve._codec._flow import Call
    from radserve._transport._endpoints import Endpoint
    from radserve.errors import ServerError
    from radserve.options import TLS, ClientOptions

_PROBE_S = 1.0
_FAREWELL_S = 1.0


@dataclass(eq=False)
class Connection:
    """A channel; closed when it was replaced and its last call has ended.

    Attributes:
        channel: Of grpc or grpc.aio.
        stub: Triton's service on it.
        tls: The certificates it was opened with.
        calls: How many use it.
    """

    channel: Any
    stub: Any
    tls: TLS | None
    calls: int = 0


class Send(Plain, frozen=True, kw_only=False):
    """What a transport is to do: make a call and send back its response, or a Failure."""

    connection: Connection
    rpc: Rpc
    timeout_s: float
    metadata: tuple[tuple[str, str], ...]

    def start(self) -> Any:  # noqa: ANN401 - a response, or a call to await
        return self._method(self.rpc.request, timeout=self.timeout_s, metadata=self.metadata)

    def start_future(self) -> Any:  # noqa: ANN401 - a grpc.Future
        return self._method.future(self.rpc.request, timeout=self.timeout_s, metadata=self.metadata)

    @property
    def _method(self) -> Any:  # noqa: ANN401 - of a generated class
        return getattr(self.connection.stub, self.rpc.method)


class Core:
    """The state of a transport.

    Args:
        options: The client's.
        module: ``grpc`` or ``grpc.aio``.

    Raises:
        InputError: An address is malformed, or would carry patient data as plain text.
    """

    def __init__(self, options: ClientOptions, module: Any) -> None:  # noqa: ANN401 - two modules of one shape
        for url in options.endpoints:
            check_address(url, options)
        self._options = options
        self._module = module
        self._tls = options.tls
        self._pool = Pool(options.endpoints)
        self._connections: dict[str, Connection] = {}
        self._replaced: list[Connection] = []
        self._shared = {url: SharedMemory() for url in options.endpoints} if options.shared_memory else {}
        self._lock = threading.Lock()
        self.is_closed = False

    def farewell(self) -> list[Send]:
        """No further calls by others; what the transport is to tell the servers before it closes the channels."""
        self.is_closed = True
        with self._lock:
            connections = dict(self._connections)
        return [
            Send(connections[url], unregister(name), _FAREWELL_S, self._metadata())
            for url, shared in self._shared.items()
            for name in shared.regions()
            if url in connections
        ]

    def close(self) -> list[Any]:
        """The channels that the transport is to close."""
        for shared in self._shared.values():
            shared.give_up()
        with self._lock:
            open_ones = [*self._connections.values(), *self._replaced]
            self._connections, self._replaced = {}, []
        return [connection.channel for connection in open_ones]

    def drained(self) -> list[Any]:
        """Channels that were replaced and have no calls any more: for the transport to close."""
        if not self._replaced:
            return []
        with self._lock:
            done = [connection for connection in self._replaced if not connection.calls]
            self._replaced = [connection for connection in self._replaced if connection.calls]
        return [connection.channel for connection in done]

    def closed_error(self) -> ClientClosedError:
        return ClientClosedError("the client was closed: make a new Client")

    def attempt(self, step: Call, timeout_s: float) -> Generator[Send, Any, Reply]:
        """One attempt.

        Raises:
            ServerError: It failed.
            ClientClosedError: The client was closed.
            InputError: The request is larger than a message may be.
        """
        rpc = to_rpc(step)
        self._check(step)
        end = time.monotonic() + timeout_s
        endpoint = self._pool.pick(self._avoided(step))
        if endpoint.is_suspect and not isinstance(step, IsReady):
            endpoint = yield from self._ready_endpoint(step, endpoint, timeout_s)
        metadata = self._metadata()
        full_s = max(0.0, end - time.monotonic())
        limit_s = self._limit_s(step, endpoint, full_s)
        end -= full_s - limit_s

        def ask(rpc: Rpc) -> Generator[Send, Any, Any]:
            return self._on(endpoint, rpc, max(0.0, end - time.monotonic()), metadata)

        shared = self._shared.get(endpoint.url) if isinstance(step, Infer) else None
        response = yield from ask(rpc) if shared is None else shared.infer(rpc, ask)
        if not isinstance(response, Failure):
            self._pool.report(endpoint, None)
            return Reply(message=read(step, response), endpoint=endpoint.url)
        error = self._translated(response, rpc, endpoint, metadata)
        if limit_s < full_s and isinstance(error, DeadlineExceededError):
            error.retry = Retry.ONCE_ELSEWHERE
        self._pool.report(endpoint, error)
        if isinstance(step, IsReady):  # what restricts its health is alive
            return Reply(message=isinstance(error, UnauthenticatedError), endpoint=endpoint.url)
        raise error

    def _check(self, step: Call) -> None:
        if self.is_closed:
            raise self.closed_error()
        most = self._options.max_message_bytes
        if isinstance(step, Infer) and (size := step.request.size) > most:
            msg = f"the request has {size / 2**20:.1f} MiB, a message at most {most / 2**20:.1f} MiB: send fewer items"
            raise InputError(msg)

    def _ready_endpoint(self, step: Call, endpoint: Endpoint, timeout_s: float) -> Generator[Send, Any, Endpoint]:
        """The server for a call; one that failed lately shows that it is ready before it is given the call.

        A server that was stopped accepts connections and never answers: each call would wait for it in vain.
        One that answers that it is not ready is given the call where there is no other: it says so of all its
        models while one of them is loaded.
        """
        avoid = self._avoided(step)
        while endpoint.is_suspect:
            avoid |= {endpoint.url}
            is_last = not self._pool.has_others(avoid)
            metadata = self._metadata()
            response = yield from self._on(endpoint, READY, min(_PROBE_S, timeout_s / 2), metadata)
            if not isinstance(response, Failure):
                if response.ready or is_last:
                    return endpoint
                error: ServerError = _unready(endpoint.url, None)
            else:
                error = self._translated(response, READY, endpoint, metadata)
                if isinstance(error, UnauthenticatedError):  # what restricts its health is alive
                    return endpoint
                if isinstance(error, DeadlineExceededError):
                    error = _unready(endpoint.url, error.code)
            self._pool.report(endpoint, error)
            if is_last:
                raise error
            endpoint = self._pool.pick(avoid)
        return endpoint

    def _avoided(self, step: Call) -> frozenset[str]:
        if step.endpoint in self._options.endpoints:
            return frozenset(self._options.endpoints) - {step.endpoint}
        return step.avoid

    def _limit_s(self, step: Call, endpoint: Endpoint, full_s: float) -> float:
        """How long an attempt may take: a server that was stopped must leave time to ask another one."""
        if len(self._options.endpoints) == 1:
            return full_s
        avoid = self._avoided(step) | {endpoint.url}
        can_go_on = self._pool.has_others(avoid, in_use=True) and len(avoid) < self._options.retry.attempts
        return full_s / 2 if can_go_on else full_s

    def _on(
        self, endpoint: Endpoint, rpc: Rpc, timeout_s: float, metadata: tuple[tuple[str, str], ...]
    ) -> Generator[Send, Any, Any]:
        """Make one call on the connection to a server; a call that is given up leaves no trace."""
        connection = self._connection(endpoint.url)
        done = False
        try:
            response = yield Send(connection, rpc, timeout_s, metadata + traceparent())
            done = True
        finally:
            with self._lock:
                connection.calls -= 1
            if not done:
                self._pool.drop(endpoint)
        return response

    def _connection(self, url: str) -> Connection:
        """The connection to a server, by the certificates that are there now."""
        with self._lock:
            if self._tls is not None:
                self._tls = self._tls.current()
            found = self._connections.get(url)
            if self.is_closed:
                raise self.closed_error()
            if found is None or found.tls is not self._tls:
                channel = open_channel(url, self._options, self._tls, self._module)
                if found is not None:
                    self._replaced.append(found)
                found = Connection(channel, stub_on(channel), self._tls)
                self._connections[url] = found
            found.calls += 1
            return found

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Secrets as they are now."""
        options, metadata = self._options, []
        if options.token is not None:
            metadata.append(("authorization", f"Bearer {options.token.read()}"))
        if options.protocol_key is not None and options.protocol_secret is not None:
            header = f"triton-grpc-protocol-{options.protocol_key}"
            metadata.append((header.lower(), options.protocol_secret.read()))
        return tuple(metadata)

    def _translated(
        self,
        failure: Failure,
        rpc: Rpc,
        endpoint: Endpoint,
        metadata: tuple[tuple[str, str], ...],
    ) -> ServerError:
        return translate(
            failure.code,
            failure.details,
            url=endpoint.url,
            model=rpc.model,
            version=rpc.version,
            request_id=rpc.request_id,
            credentials_changed=metadata != self._metadata(),
        )


def _unready(url: str, code: str | None) -> ServerUnavailableError:
    msg = f"{url} does not say that it is ready: check that server"
    return ServerUnavailableError(msg, code=code, endpoint=url, retry=Retry.ELSEWHERE)
