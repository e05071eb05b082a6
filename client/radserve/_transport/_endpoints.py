"""Which of several servers a call goes to: the one with the fewest calls in flight that has not failed lately."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radserve.errors import DeadlineExceededError, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from radserve.errors import ServerError

_FAILURES = 2
_SHORTEST_S = 1.0
_LONGEST_S = 30.0


@dataclass(eq=False)
class Endpoint:
    """A server, as the pool sees it.

    Attributes:
        url: Its ``host:port``.
        in_flight: Calls that it has not answered yet.
        failures: Calls in a row that did not reach it or were lost on the way.
        out_until: Until when, by the pool's clock, it is asked only if there is no other.
        is_suspect: Whether it should show that it is ready before it is given a call.
        used: The pool's number of its last call.
    """

    url: str
    in_flight: int = 0
    failures: int = 0
    out_until: float = 0.0
    is_suspect: bool = False
    used: int = 0


class Pool:
    """The servers of one client; thread-safe, without I/O.

    A server that failed twice in a row is left out for 1 s, twice as long each
    further time up to 30 s, shortened at random by up to a half so that many
    clients do not come back at once; one server always stays in. A server that
    let a deadline pass may be slow or stopped: it is not left out, but is suspect.

    Args:
        urls: ``host:port`` of each.
        clock: Monotonic time in seconds.
        chance: Uniform from 0 to 1.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._endpoints = [Endpoint(url) for url in urls]
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._calls = 0

    def pick(self, avoid: frozenset[str] = frozenset()) -> Endpoint:
        """The server for a call, which counts as in flight until ``report`` or ``drop``.

        Args:
            avoid: Servers that are taken only where there is no other.
        """
        with self._lock:
            now = self._clock()
            candidates = self._endpoints
            if avoid:
                candidates = [one for one in candidates if one.url not in avoid] or candidates
            in_use = [one for one in candidates if one.out_until <= now and not (one.is_suspect and one.in_flight)]
            if in_use:
                chosen = min(in_use, key=lambda one: (one.in_flight, one.used))
            else:
                chosen = min(candidates, key=lambda one: one.out_until)
            self._calls += 1
            chosen.used = self._calls
            chosen.in_flight += 1
            return chosen

    def has_others(self, avoid: frozenset[str], *, in_use: bool = False) -> bool:
        """Whether there is a server that is not to be avoided, and not left out now."""
        with self._lock:
            now = self._clock()
            return any(one.url not in avoid and (not in_use or one.out_until <= now) for one in self._endpoints)

    def drop(self, endpoint: Endpoint) -> None:
        """A call was given up by the caller: it says nothing about the server."""
        with self._lock:
            endpoint.in_flight -= 1

    def report(self, endpoint: Endpoint, error: ServerError | None) -> None:
        """What came of a call; only what another server might do better counts against this one."""
        with self._lock:
            endpoint.in_flight -= 1
            if error is not None and isinstance(error, DeadlineExceededError):
                endpoint.is_suspect = len(self._endpoints) > 1
                return
            if error is None or error.retry not in {Retry.ELSEWHERE, Retry.ONCE_ELSEWHERE}:
                endpoint.failures, endpoint.out_until, endpoint.is_suspect = 0, 0.0, False
                return
            endpoint.failures += 1
            now = self._clock()
            others_in = any(one is not endpoint and one.out_until <= now for one in self._endpoints)
            if endpoint.failures >= _FAILURES and others_in:
                longest = min(_LONGEST_S, _SHORTEST_S * 2.0 ** min(endpoint.failures - _FAILURES, 10))
                endpoint.out_until = now + longest * (1 - self._chance() / 2)
                endpoint.is_suspect = True
