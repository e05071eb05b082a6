"""Where the inferences of several threads meet, to be sent in few requests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from radserve.telemetry import under

if TYPE_CHECKING:
    from radserve._codec import Answer, Coalescer, Group, Item
    from radserve._transport import Cancellable


class Meeting:
    """Carries out what a coalescer decides, in the threads that wait for the answers: no others are needed.

    Args:
        coalescer: Decides which inferences are sent together, and when.
        transport: Makes the calls.
    """

    def __init__(self, coalescer: Coalescer, transport: Cancellable) -> None:
        self._coalescer = coalescer
        self._transport = transport
        self._changed = threading.Condition()

    def infer(self, item: Item) -> Answer:
        """The answer to an inference; meanwhile its thread sends what is due, its own or others'.

        Raises:
            RadserveError: What its request failed with.
        """
        with self._changed:
            self._coalescer.add(item)
        while (group := self._due_or_answered(item)) is not None:
            self._send(group)
        answer: Answer | BaseException = item.waiter
        item.waiter = None
        if not isinstance(answer, BaseException):
            return answer
        try:
            raise answer
        finally:
            del answer  # an error that its own frame holds would hold the pixels, too

    def _due_or_answered(self, item: Item) -> Group | None:
        """What this thread is to send now, as soon as there is something; None once its own item is answered."""
        with self._changed:
            while item.waiter is None:
                group = self._coalescer.take()
                if group is not None:
                    return group
                self._changed.wait(self._coalescer.due_s())
        return None

    def _send(self, group: Group) -> None:
        outcomes: list[Answer | BaseException]
        is_answered = False
        try:
            ask = group.ask()
            with under([item.span for item in group.items]):
                reply = self._transport.call(ask.call, timeout_s=ask.timeout_s)
            outcomes = list(group.answers(reply))
            is_answered = True
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is those who wait that are to know
            outcomes = [group.error_of(item, error) for item in group.items]
        with self._changed:
            for item, outcome in zip(group.items, outcomes, strict=True):
                item.waiter = outcome
            self._coalescer.finish(group, is_answered=is_answered)
            self._changed.notify_all()
