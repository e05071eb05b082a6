"""What the process that measures and its workers tell each other over pipes: frames of a length and a content."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from radserve.loadtest._figures import ErrorCount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from radserve.contracts import Contract
    from radserve.loadtest._plan import Plan
    from radserve.options import ClientOptions

LENGTH = struct.Struct("<Q")
WARM_UP = -1  # the index of what comes before the first window
AFTER = -2  # of what was under way at the end


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is to do; pickled, as it comes from the process that started the worker.

    Attributes:
        plan: The whole load.
        worker: This one's number, from 0 to ``plan.workers`` - 1.
        contract: Of the model.
        options: How to reach its servers; secrets come by this way alone.
        payloads: Arrays of each request, by tensor name.
    """

    plan: Plan
    worker: int
    contract: Contract
    options: ClientOptions = field(repr=False)
    payloads: Sequence[dict[str, NDArray[Any]]] = field(repr=False)

    @property
    def concurrency(self) -> int:
        """This worker's part of the requests in flight."""
        share, rest = divmod(self.plan.concurrency, self.plan.workers)
        return max(1, share + (self.worker < rest))


class Start(msgspec.Struct, frozen=True):
    """When to begin, by CLOCK_MONOTONIC, which all processes of a machine share.

    Attributes:
        warm_up: Begin of sending.
        measuring: Begin of the first window.
    """

    warm_up: float
    measuring: float


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker is connected and waits for the begin."""


class Record(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What happened in a window, or since its begin.

    Attributes:
        index: Of the window.
        begin: By CLOCK_MONOTONIC.
        seconds: Its length.
        is_whole: Whether it is over, not cut off by the end of the run.
        due: Requests that were due in it, or sent.
        sent: Requests that were sent.
        requests: Good answers.
        failed: Requests that failed.
        waiting: Requests due and not answered at its end.
        latencies: Histogram of good answers.
        punctual: Histogram of the same, less what the worker itself sent late; of an open loop alone.
        lags: Histogram of how late requests were sent that nothing held back.
        cpu_s: The process's processor time.
        busy_s: Time that the event loop was at work.
        failures: By type.
    """

    index: int
    begin: float
    seconds: float
    is_whole: bool
    due: int
    sent: int
    requests: int
    failed: int
    waiting: int
    latencies: bytes
    punctual: bytes
    lags: bytes
    cpu_s: float
    busy_s: float
    failures: list[ErrorCount]


class Lost(msgspec.Struct, frozen=True, tag=True):
    """The server does not answer any more.

    Attributes:
        message: Its last failure.
        since: When the failures began, by CLOCK_MONOTONIC.
    """

    message: str
    since: float


class Crashed(msgspec.Struct, frozen=True, tag=True):
    """The worker cannot go on.

    Attributes:
        message: Why.
    """

    message: str


Told = Ready | Record | Lost | Crashed
decode_told = msgspec.msgpack.Decoder(Told).decode
decode_start = msgspec.msgpack.Decoder(Start).decode


def frame(content: bytes) -> bytes:
    """A content behind its length."""
    return LENGTH.pack(len(content)) + content


def encode(message: Told | Start) -> bytes:
    """A message as a frame."""
    return frame(msgspec.msgpack.encode(message))
