"""What is asked of this machine's own servers takes no way that the environment chose, and survives their end."""

from __future__ import annotations

import select
import socket
import urllib.request
from contextlib import closing
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from radserve.errors import ServerError
from radserve_server import probe
from radserve_server.control import Control
from radserve_server.neighbour import page

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_CUT = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nok"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A proxy for everything, as hospitals have them; nobody should come."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the environment
        yield listener
        assert not select.select([listener], [], [], 0)[0]


def _answering(answer: bytes) -> str:
    """``host:port`` of a server for one page."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as caller:
            caller.recv(4096)
            caller.sendall(answer)

    Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.usefixtures("proxy")
def test_the_gateway_s_pages_are_read_without_a_proxy() -> None:
    assert page(f"http://{_answering(_WHOLE)}/") == "ok"


@pytest.mark.usefixtures("proxy")
def test_the_liveness_probe_asks_without_a_proxy() -> None:
    assert probe._read(_answering(_WHOLE), "/metrics") == "ok"


@pytest.mark.usefixtures("proxy")
def test_the_supervisor_asks_without_a_proxy() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as triton:
        with pytest.raises(ServerError):  # nobody answers
            Control(f"127.0.0.1:{triton.getsockname()[1]}", timeout_s=0.5).unload("a")
        assert select.select([triton], [], [], 0)[0]


def test_a_page_cut_off_by_the_gateway_s_end_is_no_page() -> None:
    assert page(f"http://{_answering(_CUT)}/") == ""
