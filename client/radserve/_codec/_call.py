"""What a client's calls share, and what each of them is given."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from radserve._codec._deadline import Deadline
from radserve._codec._plain import Plain
from radserve.errors import ClientClosedError, InputError
from radserve.options import ClientOptions, Priority

if TYPE_CHECKING:
    from radserve.audit import AuditLog
    from radserve.contracts import Contract, Policy
    from radserve.options import TLS, RetryPolicy


_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class CallOptions(Plain, frozen=True, kw_only=True):
    """One call's.

    Attributes:
        deadline: One budget over all its attempts.
        endpoints: ``host:port`` of all servers that it may go to.
        retry: How often an attempt is made again.
        random: Gives numbers from 0 to 1, for pauses.
        request_id: For the server's log; the same for all its attempts.
        frame: Which frame of a multi-frame image.
        burned_in: The client's policy for burned-in text.
        priority: How urgent it is.
        queue_timeout_s: How long it may wait in the server's queue; None as long as the call may take.
        audit: The client's audit log.
        is_named: The caller chose ``request_id``.
    """

    deadline: Deadline
    endpoints: tuple[str, ...]
    retry: RetryPolicy
    random: Callable[[], float]
    request_id: str
    frame: int | None = None
    burned_in: Policy | None = None
    priority: Priority | None = None
    queue_timeout_s: float | None = None
    audit: AuditLog | None = None
    is_named: bool = False

    def __post_init__(self) -> None:
        """Refuse a queue timeout that is no time, and a priority that is none."""
        if self.queue_timeout_s is not None and not _is_time(self.queue_timeout_s):
            msg = "queue_timeout_s must be a finite number of seconds above 0"
            raise InputError(msg)
        if not (self.priority is None or isinstance(self.priority, Priority)):
            msg = f"priority must be one of {', '.join(f'Priority.{one.name}' for one in Priority)}"
            raise InputError(msg)
        if not isinstance(self.request_id, str) or not _ID.fullmatch(self.request_id):
            msg = "request_id must be 1 to 64 ASCII letters, digits, '.', '_' and '-'"
            raise InputError(msg)


@dataclass
class ContractCell:
    """The contract in use of one model; shared by the threads that call it.

    Attributes:
        contract: The newest one that was read.
    """

    contract: Contract


class Calls:
    """Makes the options of each call. One for a client, in the process that made it.

    Args:
        options: The client's.
    """

    def __init__(self, options: ClientOptions) -> None:
        Deadline(options.timeout_s)  # refuses what no call could have
        self._options = options
        self._process = os.getpid()
        self._ids = Random()  # noqa: S311 - ids are no secret; one of our own, as others may seed the module's

    @property
    def is_forked(self) -> bool:
        """Whether this is a copy in another process than the one that opened the connections."""
        return os.getpid() != self._process

    def start(
        self,
        timeout_s: float | None,
        *,
        is_closed: bool,
        request_id: str | None = None,
        **given: Any,  # noqa: ANN401 - CallOptions' own
    ) -> CallOptions:
        """The options of a call that starts now.

        Args:
            timeout_s: Its budget; None takes the client's.
            is_closed: Whether the client was closed.
            request_id: What the caller calls it; None makes one.
            **given: Attributes of CallOptions.

        Raises:
            ClientClosedError: The client cannot be used any more.
            InputError: A time is not one, or an id is none.
        """
        if self.is_forked:
            msg = (
                "the client was made by the process that this one was forked from, and its connections did not come"
                " along: make a client in each worker process, after the fork"
            )
            raise ClientClosedError(msg)
        if is_closed:
            msg = "the client was closed: make a new one"
            raise ClientClosedError(msg)
        return CallOptions(
            deadline=Deadline(self._options.timeout_s if timeout_s is None else timeout_s),
            endpoints=self._options.endpoints,
            retry=self._options.retry,
            random=random.random,
            request_id=f"{self._ids.getrandbits(128):032x}" if request_id is None else request_id,
            is_named=request_id is not None,
            burned_in=self._options.burned_in_annotation,
            audit=self._options.audit,
            **given,
        )


def client_options(
    url: str | Sequence[str] | None,
    *,
    tls: TLS | None,
    insecure: bool | None,
    timeout_s: float | None,
    audit: AuditLog | None,
    options: ClientOptions | None,
) -> ClientOptions:
    """What a client was given, over its options, or over those of environment and configuration file.

    Raises:
        InputError: No server is named anywhere, or an option is malformed.
    """
    given: dict[str, Any] = {"tls": tls, "insecure": insecure, "timeout_s": timeout_s, "audit": audit}
    given = {name: value for name, value in given.items() if value is not None}
    if url is not None:
        given["endpoints"] = tuple(url) if isinstance(url, Sequence) and not isinstance(url, str | bytes) else (url,)
    return ClientOptions.load(**given) if options is None else replace(options, **given)


def _is_time(seconds: object) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < math.inf
