from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.inference import add_one
from support.leftovers import leftovers
from support.repositories import write_add_one, write_python

from radserve.errors import ServerStartError
from radserve_server import EmbeddedServer, ports

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.installations import CopyTriton

    StartServer = Callable[..., EmbeddedServer]

_FAILS_ON_INFERENCE = """
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse(error=pb_utils.TritonError("no weights")) for _ in requests]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    write_add_one(folder)
    return folder


def _refusal(repository: Path, **options: object) -> str:
    """The message with which a start is refused; fails if anything is left behind."""
    before = leftovers()
    with pytest.raises(ServerStartError) as refused:
        EmbeddedServer(repository, **options).start()  # type: ignore[arg-type]
    assert leftovers() == before
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_started_server_answers_and_a_stopped_one_leaves_nothing(repository: Path) -> None:
    before = leftovers()
    with EmbeddedServer(repository) as server:
        assert server.models == ("add_one",)
        assert add_one(server.grpc_url) == [1, 1, 1, 1]
        assert len(leftovers()) > len(before)
    assert leftovers() == before
    assert server.pid == 0


def test_scratch_folders_of_the_python_backend_are_removed(repository: Path) -> None:
    def scratch() -> set[Path]:
        return set(Path("/tmp").glob("python_env_*"))  # noqa: S108 - where Triton makes them

    before = scratch()
    with EmbeddedServer(repository):
        made = scratch() - before
        assert made
    assert not made & scratch()


def test_a_stopped_server_can_be_started_again(repository: Path) -> None:
    server = EmbeddedServer(repository)
    for _ in range(2):
        server.start()
        try:
            assert add_one(server.grpc_url) == [1, 1, 1, 1]
        finally:
            server.stop()


def test_a_supervisor_cannot_bring_back_a_stopped_server(repository: Path, start_server: StartServer) -> None:
    before = leftovers()
    server = start_server(repository)
    server.stop()
    with pytest.raises(ServerStartError, match="was stopped"):
        server.launch()
    assert leftovers() == before


def test_starting_twice_is_refused(repository: Path, start_server: StartServer) -> None:
    server = start_server(repository)
    with pytest.raises(ServerStartError, match="stop it first"):
        server.start()
    assert add_one(server.grpc_url) == [1, 1, 1, 1]


def test_two_servers_share_a_machine_and_the_end_of_one_is_not_felt_by_the_other(
    repository: Path, start_server: StartServer
) -> None:
    first, second = start_server(repository), start_server(repository)
    assert add_one(first.grpc_url) == add_one(second.grpc_url) == [1, 1, 1, 1]
    first.stop()
    assert add_one(second.grpc_url) == [1, 1, 1, 1]


@pytest.mark.parametrize("which", ["grpc_port", "http_port", "metrics_port"])
def test_a_port_in_use_is_named(which: str, repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} on 127.0.0.1 cannot be used" in _refusal(repository, **{which: port})


def test_a_free_port_that_is_lost_before_it_is_used_is_replaced(
    repository: Path, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = ports.choose_ports
    lost: list[list[int]] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:

        def choose_badly_at_first(host: str, *asked: int) -> list[int]:
            ports = choose(host, *asked)
            if not lost:
                lost.append(ports)
                return [taken.getsockname()[1], *ports[1:]]
            return ports

        monkeypatch.setattr(ports, "choose_ports", choose_badly_at_first)
        server = start_server(repository)
    assert lost
    assert add_one(server.grpc_url) == [1, 1, 1, 1]


def test_a_corrupt_graph_is_named_with_its_model(repository: Path) -> None:
    (repository / "add_one_pipeline" / "1" / "model.onnx").write_bytes(b"\x08\x0a not a graph")
    message = _refusal(repository, verify=False)
    assert "model add_one_pipeline version 1 cannot be loaded" in message
    assert "Protobuf parsing failed" in message


def test_a_corrupt_configuration_is_named_with_its_model(repository: Path) -> None:
    (repository / "add_one_pipeline" / "config.pbtxt").write_text("nonsense {")
    assert "Poll failed for model directory 'add_one_pipeline'" in _refusal(repository, verify=False)


def test_a_file_that_differs_from_the_manifest_is_named(repository: Path) -> None:
    with (repository / "add_one_pipeline" / "1" / "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    assert "add_one_pipeline/1/model.onnx: differs" in _refusal(repository)


def test_a_model_that_loads_but_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    write_python(tmp_path / "repository", "mute", _FAILS_ON_INFERENCE)
    message = _refusal(tmp_path / "repository")
    assert "model mute does not answer" in message
    assert "no weights" in message


def test_a_server_that_is_too_slow_is_not_waited_for(repository: Path) -> None:
    assert "not ready within 0.01 s" in _refusal(repository, start_timeout_s=0.01)


def test_an_unknown_argument_is_reported(repository: Path) -> None:
    assert "unrecognized option '--nonsense'" in _refusal(repository, extra_args=["--nonsense"])


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    assert "no model repository at" in _refusal(tmp_path / "nowhere")


def test_an_address_that_others_can_reach_is_refused(repository: Path) -> None:
    told = _refusal(repository, host="0.0.0.0")  # noqa: S104 - refused
    assert "0.0.0.0 is not loopback" in told
    assert "--i-understand-this-is-not-for-production" in told


def test_a_damaged_installation_is_refused_before_anything_is_started(
    repository: Path, copy_triton: CopyTriton
) -> None:
    broken = copy_triton(libpython=f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.9.0")
    assert "so.9.0 is missing" in _refusal(repository, tritonserver=broken)


def test_an_installation_outside_the_wheel_serves(
    repository: Path, copy_triton: CopyTriton, start_server: StartServer
) -> None:
    server = start_server(repository, tritonserver=copy_triton())
    assert add_one(server.grpc_url) == [1, 1, 1, 1]


def test_the_log_is_forwarded(repository: Path, start_server: StartServer) -> None:
    lines: list[str] = []
    start_server(repository, on_log=lines.append)
    assert any("successfully loaded 'add_one'" in line for line in lines)
