"""A TCP proxy that records what goes to the server, and stalls, resets or cuts connections."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

_RESET = struct.pack("ii", 1, 0)  # closing tells the peer so at once, with RST instead of FIN
_PIECE = 2**16


class Proxy:
    """Between a client and a server, from entering the context to leaving it.

    Args:
        target: ``host:port`` of the server.

    Attributes:
        url: ``host:port`` to connect to instead.
        target: As given; where new connections go to.
        connections: How many there were.
        reset_after: Bytes to the server after which its connection is reset, once; None for never.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._recorded: list[bytes] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._lost: list[threading.Event] = []
        self._lock = threading.Lock()
        self.reset_after: int | None = None
        self.connections = 0
        self._listen(0)
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for flowing in (*self._lost, self._flowing):
            flowing.set()
        self.cut()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for end in self._sockets:
            end.close()

    @property
    def bytes_to_server(self) -> bytes:
        """Everything that any client sent."""
        with self._lock:
            return b"".join(self._recorded)

    def stall(self) -> None:
        """Hold back every byte, both ways; connections stay open, and new ones are accepted."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let go what ``stall`` held back."""
        self._flowing.set()

    def lose(self) -> None:
        """Hold back for good what the connections of now carry, without a word to anybody; new ones are whole."""
        self._flowing.clear()
        self._lost.append(self._flowing)
        self._flowing = threading.Event()
        self._flowing.set()

    def reset(self) -> None:
        """Reset all connections; new ones are accepted."""
        self._close(abruptly=True)

    def cut(self) -> None:
        """Close all connections and refuse new ones."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(10)
        self._listener.close()
        self._close(abruptly=False)

    def mend(self) -> None:
        """Accept connections again, after ``cut``."""
        self._listen(int(self.url.rpartition(":")[2]))

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._accepting = self._start(self._accept, self._listener)

    def _start(self, function: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed by cut()
            while True:
                client, _ = listener.accept()
                self._sockets.append(client)
                host, _, port = self.target.rpartition(":")
                try:
                    server = socket.create_connection((host, int(port)))
                except OSError:
                    client.close()
                    continue
                self._sockets.append(server)
                with self._lock:
                    self.connections += 1
                    self._pairs.append((client, server))
                flowing = self._flowing
                self._start(self._pump, client, server, flowing, True)  # noqa: FBT003 - the direction
                self._start(self._pump, server, client, flowing, False)  # noqa: FBT003 - the direction

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        flowing: threading.Event,
        to_server: bool,  # noqa: FBT001
    ) -> None:
        with suppress(OSError):  # closed by the other direction, or by the test
            while piece := source.recv(_PIECE):
                flowing.wait()
                if to_server and self._is_enough(piece):
                    self.reset()
                    return
                sink.sendall(piece)
        pair = (source, sink) if to_server else (sink, source)
        with self._lock:
            if pair not in self._pairs:  # being closed in another way
                return
            self._pairs.remove(pair)
        _shut(pair, socket.SHUT_RDWR)

    def _is_enough(self, piece: bytes) -> bool:
        with self._lock:
            self._recorded.append(piece)
            if self.reset_after is None:
                return False
            self.reset_after -= len(piece)
            if self.reset_after > 0:
                return False
            self.reset_after = None
            return True

    def _close(self, *, abruptly: bool) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _shut(pair, socket.SHUT_RD if abruptly else socket.SHUT_RDWR)  # wakes who receives; RD alone tells no peer
            for end in pair:
                if abruptly:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.close()


def _shut(pair: tuple[socket.socket, socket.socket], how: int) -> None:
    for end in pair:
        with suppress(OSError):
            end.shutdown(how)
