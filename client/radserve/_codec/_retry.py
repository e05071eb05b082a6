"""Whether a call that did not succeed is made again: when, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from radserve.errors import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from radserve.errors import ServerError
    from radserve.options import RetryPolicy

_ONCE = (Retry.ONCE_ELSEWHERE, Retry.NEW_CREDENTIALS)


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What to do before the next attempt.

    Attributes:
        seconds: How long to pause.
        avoid: Endpoints that are not to be asked again, where there are others.
    """

    seconds: float
    avoid: frozenset[str]


def next_attempt(
    policy: RetryPolicy,
    failures: Sequence[ServerError],
    endpoints: Collection[str],
    remaining_s: float,
    random: Callable[[], float],
) -> Wait | None:
    """How a call goes on after a failure.

    At another server a request that was not computed is made at once. Where there
    is none left it waits a random time up to a bound that doubles ("full
    jitter": clients that failed together do not come back together).

    Args:
        policy: What the client wants.
        failures: Of each attempt so far, the latest last.
        endpoints: That can be asked.
        remaining_s: What is left of the call's budget.
        random: Gives a number from 0 to 1.

    Returns:
        None where the call has failed.
    """
    error = failures[-1]
    kinds = [failure.retry for failure in failures]
    if error.retry in (Retry.NEVER, Retry.NEW_CONTRACT) or len(failures) >= policy.attempts:
        return None
    if error.retry is Retry.BACK_OFF and not policy.retry_overload:
        return None
    if error.retry in _ONCE and kinds.count(error.retry) > 1:
        return None
    tried = frozenset(failure.endpoint for failure in failures if failure.endpoint is not None)
    longest_s = min(policy.longest_backoff_s, policy.first_backoff_s * 2 ** (len(failures) - 1))
    avoid = tried if set(endpoints) - tried else frozenset()
    if error.retry is Retry.NEW_CREDENTIALS:
        wait = Wait(seconds=0.0, avoid=frozenset())
    elif error.retry is Retry.BACK_OFF:  # never at once: the queue is full because many do that
        wait = Wait(seconds=policy.first_backoff_s + random() * longest_s, avoid=avoid)
    else:
        wait = Wait(seconds=0.0 if avoid else random() * longest_s, avoid=avoid)
    return wait if wait.seconds < remaining_s else None
