"""What kills or freezes parts of a server, and what the supervisor does about it."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as triton
from support.inference import add_one, infer
from support.leftovers import leftovers
from support.repositories import write_add_one, write_python
from support.servers import wait_until

from radserve.errors import RadserveError
from radserve_server import EmbeddedServer, Event, EventKind, canary, supervise
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., EmbeddedServer]

_WAIT_S = 60.0
_DIES_ON_666 = """
import os
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if (x == 666).any():
                os._exit(1)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x + 1)]))
        return answers
"""
_SLOW = """
import pathlib, time
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def initialize(self, args):
        self.folder = pathlib.Path(args["model_repository"])
    def execute(self, requests):
        (self.folder / "busy").touch()
        time.sleep(1.5)
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array + 1)]) for array in arrays]
"""


class Watched:
    """A supervised server, and what its supervisor reported."""

    def __init__(self, start: StartServer, repository: Path, **options: object) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        settings: dict[str, object] = {"canary_period_s": 0.2, "canary_timeout_s": 3.0} | options
        self.server = start(repository, on_event=self.events.put, **settings)

    def wait_for(self, kind: EventKind) -> list[Event]:
        """All events up to the first of a kind."""
        seen: list[Event] = []
        while not seen or seen[-1].kind is not kind:
            seen.append(self.events.get(timeout=_WAIT_S))
        return seen

    def stubs(self) -> list[int]:
        return [stub.pid for stub in stubs_of(self.server.pid, self.server.repository) if not stub.dead]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_add_one(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.mark.parametrize("instances", [1, 2])
def test_a_killed_stub_is_replaced(instances: int, tmp_path: Path, start_server: StartServer) -> None:
    write_add_one(tmp_path / "repository", instances=instances)
    watched = Watched(start_server, tmp_path / "repository")
    killed = watched.stubs()[0]
    os.kill(killed, signal.SIGKILL)
    kinds = [event.kind for event in watched.wait_for(EventKind.HEALED)]
    assert kinds[0] is EventKind.CANARY_FAILED
    assert EventKind.RESTARTED not in kinds
    for _ in range(2 * instances):
        assert add_one(watched.server.grpc_url) == [1, 1, 1, 1]


def test_a_frozen_stub_is_replaced(repository: Path, start_server: StartServer) -> None:
    watched = Watched(start_server, repository)
    frozen = watched.stubs()[0]
    os.kill(frozen, signal.SIGSTOP)
    seen = watched.wait_for(EventKind.HEALED)
    assert frozen not in watched.stubs()
    assert [event.kind for event in seen] == [EventKind.CANARY_FAILED, EventKind.HEALED]
    assert seen[0].model == "add_one_pipeline"
    assert add_one(watched.server.grpc_url) == [1, 1, 1, 1]


def test_without_a_supervisor_a_killed_stub_stays_dead(repository: Path, start_server: StartServer) -> None:
    # The control of the tests above: what heals is the supervisor, not Triton.
    watched = Watched(start_server, repository, supervise=False)
    os.kill(watched.stubs()[0], signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(RadserveError, match="not healthy"):
            canary.check(watched.server.grpc_url, "add_one", timeout_s=10)


def test_a_stub_that_dies_of_a_request_is_replaced_and_stopping_is_not_blocked(
    tmp_path: Path, start_server: StartServer
) -> None:
    write_python(tmp_path / "repository", "fragile", _DIES_ON_666)
    watched = Watched(start_server, tmp_path / "repository", drain_s=60.0)
    stub = watched.stubs()[0]
    with triton.InferenceServerClient(watched.server.grpc_url) as client:
        with pytest.raises(triton.InferenceServerException):
            infer(client, "fragile", {"X": np.full((1, 4), 666, np.float32)})
        watched.wait_for(EventKind.HEALED)
        assert infer(client, "fragile", {"X": np.zeros((1, 4), np.float32)})["Y"][0, 0] == 1
    assert stub not in watched.stubs()
    started = time.monotonic()
    watched.server.stop()
    assert time.monotonic() - started < 30, "it waited for requests that nothing answers"


def test_the_shared_memory_of_a_frozen_stub_is_removed(repository: Path, start_server: StartServer) -> None:
    watched = Watched(start_server, repository)
    (frozen,) = stubs_of(watched.server.pid, repository)
    os.kill(frozen.pid, signal.SIGSTOP)
    watched.wait_for(EventKind.HEALED)
    add_one(watched.server.grpc_url)
    assert wait_until(lambda: not any(frozen.region in name for name in leftovers()))


def test_a_killed_server_is_restarted_on_the_same_ports(
    repository: Path, start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(start_server, repository)
    url, pid = watched.server.grpc_url, watched.server.pid
    os.kill(pid, signal.SIGKILL)
    seen = watched.wait_for(EventKind.RESTARTED)
    assert seen[0].kind is EventKind.SERVER_DIED
    assert seen[0].message == "the server died (SIGKILL)"
    assert caplog.record_tuples == []  # Python would print it once more
    assert watched.server.grpc_url == url
    assert watched.server.pid != pid
    assert add_one(url) == [1, 1, 1, 1]


def test_a_frozen_server_is_restarted(repository: Path, start_server: StartServer) -> None:
    watched = Watched(start_server, repository, canary_timeout_s=0.5)
    os.kill(watched.server.pid, signal.SIGSTOP)
    watched.wait_for(EventKind.RESTARTED)
    assert add_one(watched.server.grpc_url) == [1, 1, 1, 1]


def test_a_server_that_cannot_come_back_is_given_up(
    repository: Path, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_MAX_RESTARTS", 2)
    watched = Watched(start_server, repository)
    (repository / "add_one_pipeline" / "1" / "model.onnx").write_bytes(b"broken")
    os.kill(watched.server.pid, signal.SIGKILL)
    kinds = [event.kind for event in watched.wait_for(EventKind.GAVE_UP)]
    assert kinds.count(EventKind.RESTART_FAILED) == 2
    assert watched.server.gave_up


def test_a_server_stopped_during_a_restart_stays_stopped(repository: Path, start_server: StartServer) -> None:
    before = leftovers()
    watched = Watched(start_server, repository)
    os.kill(watched.server.pid, signal.SIGKILL)
    watched.wait_for(EventKind.SERVER_DIED)
    watched.server.stop()
    assert leftovers() == before


def test_stopping_with_a_frozen_stub_leaves_nothing(repository: Path, start_server: StartServer) -> None:
    before = leftovers()
    watched = Watched(start_server, repository, supervise=False)
    os.kill(watched.stubs()[0], signal.SIGSTOP)
    watched.server.stop()
    assert leftovers() == before


def test_a_model_that_is_only_slow_is_left_alone(tmp_path: Path, start_server: StartServer) -> None:
    write_python(tmp_path / "repository", "slow", _SLOW)
    watched = Watched(start_server, tmp_path / "repository", canary_timeout_s=0.5)
    stubs = watched.stubs()
    assert add_one(watched.server.grpc_url, "slow") == [1, 1, 1, 1]
    assert watched.stubs() == stubs
    assert watched.events.empty()


def test_stopping_lets_a_request_in_flight_finish(tmp_path: Path, start_server: StartServer) -> None:
    write_python(tmp_path / "repository", "slow", _SLOW)
    watched = Watched(start_server, tmp_path / "repository", supervise=False)
    busy = tmp_path / "repository" / "slow_step" / "busy"
    busy.unlink()  # by the start's own canary
    answers: list[list[float]] = []

    def ask() -> None:
        answers.append(add_one(watched.server.grpc_url, "slow"))

    asking = threading.Thread(target=ask)
    asking.start()
    assert wait_until(busy.exists)
    watched.server.stop()
    asking.join()
    assert answers == [[1, 1, 1, 1]]
