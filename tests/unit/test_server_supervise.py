"""What a supervisor does with what it sees, without a server."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from radserve import DeadlineExceededError, ServerOverloadedError, ServerUnavailableError
from radserve.errors import InferenceFailedError
from radserve_server import EmbeddedServer, canary, stubs, supervise
from radserve_server.stubs import Stub
from radserve_server.supervise import Event, EventKind, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Scene:
    """A supervisor among fakes; what it did is in ``did``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.did: list[str] = []
        self.events: list[Event] = []
        self.stubs: list[Stub] = []
        self.fails: dict[str, Exception] = {}
        self.grpc_url, self.pid, self.repository = "127.0.0.1:1", os.getpid(), folder
        monkeypatch.setattr(supervise, "Control", lambda *_, **__: self)
        monkeypatch.setattr(stubs, "stubs_of", lambda *_: self.stubs)
        monkeypatch.setattr(stubs, "kill", lambda stub: self._do(f"kill {stub.pid}"))
        monkeypatch.setattr(canary, "public_models", lambda *_, **__: ["a", "b"])
        monkeypatch.setattr(canary, "check", lambda _url, model, **_: self._do(f"ask {model}"))
        self.supervisor = Supervisor(self, period_s=1, timeout_s=1, report=self.events.append)

    def _do(self, what: str) -> None:
        self.did.append(what)
        if what in self.fails:
            raise self.fails[what]

    def steps(self, model: str) -> list[str]:
        """The steps, or why they cannot be told."""
        self._do(f"steps {model}")
        return [f"{model}_pipeline"]

    def unload(self, model: str) -> None:
        """As Control's."""
        self._do(f"unload {model}")

    def load(self, model: str, *, timeout_s: float) -> None:
        """As Control's."""
        assert timeout_s > 0
        self._do(f"load {model}")

    def wait_for_end(self, _timeout_s: float) -> str | None:
        """It does not end."""
        return None

    def launch(self) -> None:
        """As the server's."""
        self._do("launch")
        self.stubs = []

    def strike(self, *ill: Stub) -> None:
        """Let living stubs fall ill, and the supervisor go its round."""
        self.stubs = [Stub(stub.pid, "S", stub.model, stub.region) for stub in ill]
        self.supervisor._look_at_stubs()
        self.stubs = [stub if stub.frozen else Stub(stub.pid, "Z", "", "") for stub in ill]
        self.supervisor._round()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    return Scene(monkeypatch, tmp_path)


def test_all_stubs_of_a_model_are_replaced_by_one_reload(scene: Scene) -> None:
    scene.strike(Stub(11, "T", "a_pipeline", ""), Stub(12, "T", "a_pipeline", ""))
    assert scene.did[:4] == ["unload a_pipeline", "kill 11", "kill 12", "load a_pipeline"]
    assert scene.did[4:] == ["ask a", "ask b"]


def test_a_dead_stub_s_process_id_is_not_killed(scene: Scene) -> None:
    scene.strike(Stub(11, "Z", "a_pipeline", ""))
    assert scene.did[:2] == ["unload a_pipeline", "load a_pipeline"]


@pytest.mark.parametrize("later", ["S", ""])
def test_a_moment_s_halt_and_an_orderly_end_are_no_illness(
    later: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(
        [
            [Stub(11, "S", "a_pipeline", "")],
            [Stub(11, "T", "a_pipeline", "") if later else Stub(11, "Z", "", "")],
            [Stub(11, later, "a_pipeline", "")] if later else [],
        ]
    )
    monkeypatch.setattr(stubs, "stubs_of", lambda *_: next(looks))
    scene.supervisor._look_at_stubs()
    scene.supervisor._round()
    assert scene.did == ["ask a", "ask b"]
    assert scene.events == []


def test_after_a_restart_the_old_stubs_are_not_cured(scene: Scene) -> None:
    scene.fails["unload a_pipeline"] = ServerUnavailableError("gone")
    scene.strike(Stub(11, "T", "a_pipeline", ""), Stub(12, "T", "b_pipeline", ""))
    assert scene.did == ["unload a_pipeline", "launch"]


def test_a_full_queue_after_a_reload_is_no_reason_to_restart(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    says = iter([InferenceFailedError("is not healthy"), ServerOverloadedError("full")])

    def check(_url: str, model: str, **_: float) -> None:
        if model == "a":
            raise next(says)

    monkeypatch.setattr(canary, "check", check)
    scene.supervisor._round()
    assert scene.did == ["steps a", "unload a_pipeline", "load a_pipeline"]
    assert [event.kind for event in scene.events] == [EventKind.CANARY_FAILED, EventKind.HEALED]


def test_a_server_too_late_to_tell_a_model_s_steps_does_not_end_the_round(scene: Scene) -> None:
    scene.fails["ask a"] = scene.fails["steps a"] = DeadlineExceededError("late")
    scene.supervisor._round()
    assert scene.did == ["ask a", "steps a", "ask b"]


class _Process:
    """A server's process."""

    pid = 0
    running = True

    def __init__(self) -> None:
        self.stops = 0
        self.on_stop: Callable[[], object] = lambda: None

    def stop(self) -> None:
        """Count, and do what else is asked."""
        self.stops += 1
        self.on_stop()

    def kill(self) -> None:
        """Nothing is to be killed."""


class _Joined:
    """A supervisor that puts another process in place before it ends."""

    def __init__(self, on_join: Callable[[], object] = lambda: None) -> None:
        self.cancelled = threading.Event()
        self.cancel = self.cancelled.set
        self.join = on_join


def _server(process: _Process, supervisor: _Joined, folder: Path) -> EmbeddedServer:
    server = EmbeddedServer(folder, supervise=False)
    vars(server).update(_process=process, _supervisor=supervisor)
    return server


def test_a_server_that_its_supervisor_restarted_meanwhile_is_drained_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _Process(), _Process()
    server = _server(first, _Joined(lambda: vars(server).update(_process=second)), tmp_path)
    monkeypatch.setattr(server, "launch", lambda: None)
    server.restart()
    assert (first.stops, second.stops) == (1, 1)


def test_stopping_ends_the_supervisor_that_a_restart_has_just_begun(tmp_path: Path) -> None:
    first, second = _Joined(), _Joined()
    server = _server(_Process(), first, tmp_path)

    class Turn:
        """A lock for which stop() waits while the restart goes on."""

        def __enter__(self) -> None:
            vars(server)["_supervisor"] = second

        def __exit__(self, *_: object) -> None:
            pass

    vars(server)["_lock"] = Turn()
    server.stop()
    assert first.cancelled.is_set()
    assert second.cancelled.is_set()
