"""That the benchmark's own client sends what it says, and counts what was answered."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from bench.peers.closed_loop import METHOD

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).with_name("closed_loop.py")


def run(protocol: str, port: int, request: Path, in_flight: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), protocol, f"127.0.0.1:{port}", str(request), str(in_flight), "0.3"]
    return subprocess.run(command, input="go\n", capture_output=True, text=True, timeout=60, check=False)  # noqa: S603


class Answers:
    """What a stub server received, and the sizes of what it answers, the last one for good."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.sizes = [7]
        self.lock = threading.Lock()

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> bytes:  # noqa: ARG002 - gRPC's signature
        with self.lock:
            self.received.append(request)
            size = self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]
        return bytes(size)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def grpc_port(answers: Answers) -> Iterator[int]:
    service, _, method = METHOD.decode().strip("/").partition("/")
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(answers)})
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture
def http_port(answers: Answers) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = answers(self.rfile.read(int(self.headers["Content-Length"])), None)  # type: ignore[arg-type] # unused
            self.send_response(200 if body else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


# 40 of the larger are more than a connection's first window.
@pytest.mark.parametrize(("size", "in_flight"), [(10, 1), (10, 8), (50_000, 40)])
def test_grpc_calls_arrive_whole_and_are_counted(
    grpc_port: int, answers: Answers, tmp_path: Path, size: int, in_flight: int
) -> None:
    request = tmp_path / "request"
    request.write_bytes(bytes(number % 251 for number in range(size)))
    done = run("grpc", grpc_port, request, in_flight)
    assert done.returncode == 0, done.stderr
    calls, seconds = done.stdout.split()[1:]
    # Warm-up, lead-in and what was in flight at the end do not count.
    assert 0 < int(calls) <= len(answers.received) - 2 * in_flight
    assert set(answers.received) == {request.read_bytes()}
    assert float(seconds) == 0.3


def test_http_requests_arrive_and_are_counted(http_port: int, answers: Answers, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(b"POST / HTTP/1.1\r\nHost: stub\r\nContent-Length: 5\r\n\r\nhello")
    done = run("http", http_port, request, 4)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout.split()[1]) <= len(answers.received) - 8
    assert set(answers.received) == {b"hello"}


@pytest.mark.parametrize("later", [0, 8])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_another_answer_than_the_first_ends_the_run(
    protocol: str, later: int, answers: Answers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    answers.sizes = [7, 7, later]
    prepared = tmp_path / "request"
    prepared.write_bytes(b"POST / HTTP/1.1\r\nHost: stub\r\nContent-Length: 5\r\n\r\nhello")
    done = run(protocol, request.getfixturevalue(f"{protocol}_port"), prepared, 1)
    assert done.returncode
    assert "ConnectionError" in done.stderr


def test_a_call_that_fails_ends_the_run(grpc_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise ValueError

    monkeypatch.setattr(Answers, "__call__", refuse)
    request = tmp_path / "request"
    request.write_bytes(b"x")
    done = run("grpc", grpc_port, request, 1)
    assert done.returncode
    assert "an answer of 0 bytes" in done.stderr
