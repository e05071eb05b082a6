"""What a client and its models share: the connections, and what carries out a flow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from radserve._codec import Ask, Calls, Join, Prepare, Sleep, prepare_step, told, work_of
from radserve._transport import SyncTransport
from radserve.errors import RadserveError, ServerError
from radserve.telemetry import request

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve._codec import CallOptions, Flow, Prepared
    from radserve._transport import Cancellable
    from radserve.client._meeting import Meeting
    from radserve.options import ClientOptions

T = TypeVar("T")


def run(
    flow: Flow[T],
    transport: SyncTransport | Cancellable,
    prepare: Callable[[Prepare], Prepared] = prepare_step,
    meeting: Meeting | None = None,
) -> T:
    """Carry out the steps of a flow, one after the other.

    Args:
        flow: Says what to do.
        transport: Makes its calls.
        prepare: Makes arrays of its source.
        meeting: Where its inferences meet others.
    """
    answer: Any = None
    failure: RadserveError | None = None
    try:
        while True:
            step = flow.send(answer) if failure is None else flow.throw(failure)
            answer = failure = None
            try:
                if isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    continue
                with told(step):
                    if isinstance(step, Ask):
                        answer = transport.call(step.call, timeout_s=step.timeout_s)
                    elif isinstance(step, Prepare):
                        answer = prepare(step)
                    elif isinstance(step, Join):
                        assert meeting is not None  # noqa: S101 - a call without has no such steps
                        answer = meeting.infer(step.item)
                    else:
                        step.write()
            except ServerError as error:
                failure = error.with_traceback(None)  # see below
            except RadserveError as error:
                failure = error
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        flow.close()
        del failure  # a frame that holds an error in whose traceback it stands would hold the pixels, too


class Session:
    """The connections of one client, and its options. Made by ``Client``; thread-safe.

    Attributes:
        options: The client's.
        transport: Makes its calls.
    """

    def __init__(self, options: ClientOptions) -> None:
        self._calls = Calls(options)
        self.options = options
        self.transport = SyncTransport(options)

    @property
    def url(self) -> str:
        """Where it is connected to."""
        return ", ".join(self.options.endpoints)

    def call(self, timeout_s: float | None, **given: Any) -> CallOptions:  # noqa: ANN401 - CallOptions' attributes
        """The options of a call that starts now; see ``Calls.start``."""
        return self._calls.start(timeout_s, is_closed=self.transport.is_closed, **given)

    def run(
        self, flow: Flow[T], prepare: Callable[[Prepare], Prepared] = prepare_step, *, model: str | None = None
    ) -> T:
        """Carry out a flow; ``model`` is what it asks, if it asks one."""
        with request(work_of(flow), model=model):
            return run(flow, self.transport, prepare)

    def close(self) -> None:
        """Close the connections, unless they are another process's."""
        if not self._calls.is_forked:
            self.transport.close()
