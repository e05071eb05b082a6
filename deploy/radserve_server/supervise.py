"""Keep an embedded server answering: a real inference per model, again and again.

Triton never restarts a dead stub, and calls itself ready all the while. So the
only truth is a canary, and the only cures are to load the model anew and to
restart the server.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from radserve.errors import (
    DeadlineExceededError,
    ModelNotFoundError,
    RadserveError,
    ServerOverloadedError,
    ServerStartError,
    ServerUnavailableError,
)
from radserve_server import canary, stubs
from radserve_server.control import Control

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOAD_S = 120.0
_GLANCE_S = 0.1
_STUCK_S = 60.0
_SILENT_ROUNDS = 3
_MAX_RESTARTS = 5
_HEALTHY_AGAIN_S = 60.0
_MAX_BACK_OFF_S = 30.0
_JOIN_S = 30.0

_log = logging.getLogger("radserve.server")


class EventKind(str, Enum):
    """What a supervisor saw or did."""

    CANARY_FAILED = "canary_failed"
    HEALED = "healed"
    SERVER_DIED = "server_died"
    RESTARTING = "restarting"
    RESTARTED = "restarted"
    RESTART_FAILED = "restart_failed"
    GAVE_UP = "gave_up"


@dataclass(frozen=True)
class Event:
    """One thing a supervisor saw or did.

    Attributes:
        kind: What it was.
        model: The model it was about, if one.
        message: One line for people.
    """

    kind: EventKind
    model: str | None
    message: str


class Supervised(Protocol):
    """What a supervisor needs of a server."""

    @property
    def grpc_url(self) -> str:
        """``host:port`` of its gRPC service."""

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""

    @property
    def repository(self) -> Path:
        """Its model repository."""

    def wait_for_end(self, timeout_s: float) -> str | None:
        """Why its process ended, or None if it has not within the time."""

    def launch(self) -> None:
        """Run it anew on the same ports."""


class Supervisor:
    """Watches one server from a thread of its own.

    Args:
        server: What to watch.
        period_s: Time between two rounds of canaries.
        timeout_s: Deadline of one canary.
        report: Called with each event, from that thread.
    """

    def __init__(
        self,
        server: Supervised,
        *,
        period_s: float,
        timeout_s: float,
        report: Callable[[Event], None] | None = None,
    ) -> None:
        self._server = server
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._report = report
        self._stopping = threading.Event()
        self.gave_up = threading.Event()
        """Set when nothing helped, and no more is tried."""
        self._known: dict[int, stubs.Stub] = {}
        self._seen_twice: set[int] = set()
        self._silent_rounds = 0
        self._restarts = 0
        self._restarted_at = 0.0
        self._late_since: dict[str, tuple[float, int]] = {}
        self._thread = threading.Thread(target=self._run, name="radserve-supervisor", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._look_at_stubs()
        self._thread.start()

    def cancel(self) -> None:
        """Heal and restart no more; returns at once."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the thread, after ``cancel`` and the server's end."""
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping.is_set() and not self.gave_up.is_set():
            why = self._wait()
            if self._stopping.is_set():
                return
            try:
                if why is not None:
                    self._tell(EventKind.SERVER_DIED, None, f"the server died ({why})")
                    self._restart()
                else:
                    self._round()
            except Exception:  # noqa: BLE001 - a supervisor that dies silently is worse than one that errs
                _log.exception("the supervisor failed in this round")

    def _wait(self) -> str | None:
        """Wait for the next round, or until the server ends or a stub is ill; returns why the server ended."""
        until = time.monotonic() + self._period_s
        ill: set[int] = set()
        self._seen_twice = set()
        while (left_s := until - time.monotonic()) > 0:
            why = self._server.wait_for_end(min(left_s, _GLANCE_S))
            if why is not None or self._stopping.is_set():
                return why
            before, ill = ill, {pid for pid in self._known if stubs.is_ill(pid)}
            if stubs.is_frozen(self._server.pid):
                ill.add(self._server.pid)
            if self._server.pid in ill & before:
                return "frozen by a signal"
            if ill & before:
                self._seen_twice = ill & before
                return None
        return None

    def _tell(self, kind: EventKind, model: str | None, message: str) -> None:
        if self._stopping.is_set():  # what fails now, fails because the server is being stopped
            return
        if self._report is not None:
            self._report(Event(kind, model, message))
            return
        # Without any handler Python prints warnings itself: never beside a report.
        _log.log(logging.INFO if kind in (EventKind.HEALED, EventKind.RESTARTED) else logging.WARNING, "%s", message)

    def _round(self) -> None:
        control = Control(self._server.grpc_url, timeout_s=self._timeout_s)
        ill: dict[str, list[stubs.Stub]] = {}
        for stub in self._look_at_stubs():
            what = "is frozen" if stub.frozen else "died"
            self._tell(EventKind.CANARY_FAILED, stub.model, f"a Python process of model {stub.model} {what}")
            ill.setdefault(stub.model, []).append(stub)
        for model, theirs in ill.items():  # all of a model at once: a second reload would end the new ones
            if not self._reload(control, {model}, theirs):
                return  # the server was started anew, and its stubs with it
        try:
            models = canary.public_models(self._server.grpc_url, timeout_s=self._timeout_s)
        except RadserveError as error:
            self._silent_rounds += 1
            if self._silent_rounds >= _SILENT_ROUNDS:
                self._tell(EventKind.CANARY_FAILED, None, f"the server does not answer: {error}")
                self._restart()
            return
        self._silent_rounds = 0
        answered = [self._check(control, model) for model in models]
        if all(answered) and time.monotonic() - self._restarted_at > _HEALTHY_AGAIN_S:
            self._restarts = 0

    def _look_at_stubs(self) -> list[stubs.Stub]:
        """Remember the living stubs; return the remembered ones that died or are frozen."""
        seen = stubs.stubs_of(self._server.pid, self._server.repository)
        # A dead one no longer says what it was.
        ill = [
            replace(self._known[stub.pid], state=stub.state)
            for stub in seen
            if stub.pid in self._known and (stub.dead or stub.frozen)
        ]
        self._known = {stub.pid: stub for stub in seen if stub.model and not stub.frozen}
        if any(stub.pid not in self._seen_twice for stub in ill):
            # A moment's halt is no illness, nor is the end of a stub whose model was unloaded: Triton buries it.
            self._stopping.wait(_GLANCE_S)
            still = {
                stub.pid
                for stub in stubs.stubs_of(self._server.pid, self._server.repository)
                if stub.dead or stub.frozen
            }
            self._known |= {stub.pid: stub for stub in ill if stub.frozen and stub.pid not in still}
            ill = [stub for stub in ill if stub.pid in still]
        return ill

    def _check(self, control: Control, model: str) -> bool:
        try:
            canary.check(self._server.grpc_url, model, timeout_s=self._timeout_s)
        except (ModelNotFoundError, ServerOverloadedError, ServerUnavailableError):
            # Being published anew, or busy, or the whole server is dead: not this model's illness.
            return False
        except RadserveError as error:
            with suppress(RadserveError):  # the whole server is late: there are further models, and further rounds
                self._cure(control, model, error)
            return False
        self._late_since.pop(model, None)
        return True

    def _cure(self, control: Control, model: str, error: RadserveError) -> None:
        steps = set(control.steps(model))
        theirs = [stub for stub in stubs.stubs_of(self._server.pid, self._server.repository) if stub.model in steps]
        ill = [stub for stub in theirs if stub.stopped]
        if isinstance(error, DeadlineExceededError) and not ill:
            if not self._stuck(control, model, steps):
                return  # slow, but it works
            ill = theirs
        self._tell(EventKind.CANARY_FAILED, model, f"model {model} does not answer: {error}")
        self._late_since.pop(model, None)
        if not self._reload(control, {stub.model for stub in ill} or steps, ill):
            return
        try:
            canary.check(self._server.grpc_url, model, timeout_s=self._timeout_s)
        except ServerOverloadedError:
            return  # it works: those who waited have filled its queue
        except RadserveError as again:
            self._tell(EventKind.CANARY_FAILED, model, f"model {model} does not answer after a reload: {again}")
            self._restart()

    def _stuck(self, control: Control, model: str, steps: set[str]) -> bool:
        """Whether a late model has not finished a single request for long."""
        finished = sum(control.executions(step) for step in steps)
        since, before = self._late_since.get(model, (time.monotonic(), finished))
        if finished != before:
            since = time.monotonic()
        self._late_since[model] = (since, finished)
        return time.monotonic() - since > _STUCK_S

    def _reload(self, control: Control, models: set[str], ill: list[stubs.Stub]) -> bool:
        """Load models anew, without their ill stubs."""
        try:
            # A gateway asks another server for what is not found, and none for what a dead stub spoils: so this first.
            for model in sorted(models):
                control.unload(model)
            for stub in ill:
                if not stub.dead:  # else its process id may be another's by now
                    stubs.kill(stub)
            for model in sorted(models):
                control.load(model, timeout_s=_LOAD_S)
                self._tell(EventKind.HEALED, model, f"model {model} was loaded anew")
        except RadserveError as error:
            self._tell(EventKind.CANARY_FAILED, model, f"model {model} cannot be loaded again: {error}")
            self._restart()
            return False
        for stub in ill:
            stubs.remove_region(stub)
            self._known.pop(stub.pid, None)
        return True

    def _restart(self) -> None:
        self._silent_rounds = 0
        while not self._stopping.is_set():
            if self._restarts >= _MAX_RESTARTS:
                self._tell(
                    EventKind.GAVE_UP, None, f"the server was restarted {_MAX_RESTARTS} times in vain: giving up"
                )
                self.gave_up.set()
                return
            back_off_s = min(2.0**self._restarts - 1, _MAX_BACK_OFF_S)
            self._restarts += 1
            if self._stopping.wait(back_off_s):
                return
            try:
                self._server.launch()
            except ServerStartError as error:
                self._tell(EventKind.RESTART_FAILED, None, str(error))
                continue
            self._restarted_at = time.monotonic()
            self._known = {}
            self._look_at_stubs()
            self._tell(EventKind.RESTARTED, None, f"the server was restarted at {self._server.grpc_url}")
            return
