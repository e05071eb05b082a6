"""A cheap client: keeps so many copies of one prepared request in flight; run as a program of its own.

Command line: ``http`` or ``grpc``, host:port, file of the request, calls in flight, seconds. For HTTP the
file holds the request as it travels, and each call in flight has a connection of its own; for gRPC it holds
the serialised ModelInferRequest, and all share one connection, as gRPC's channels do. No answer is parsed
further than its length, which must be that of the first. gRPC's frames are written here, without a library:
gRPC's own Python client costs more than the servers that are to be measured.

It prints ``ready`` once every call in flight was answered, waits for a line, and prints how many calls were
answered in so many seconds, which begin when the calls have been in flight for a while: a server that computes
several at once begins and ends with a long wait.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

METHOD = b"/inference.GRPCInferenceService/ModelInfer"
_PATIENCE_S = 60.0
_LEAD_IN_S = 0.3


class Link(Protocol):
    """A connection that can send the request."""

    def send(self) -> None: ...


class Loop:
    """Sends again for each answer until the time is up."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.calls = 0
        self._answer_size: int | None = None
        self._since = self._until = 0.0
        self._in_flight = 0
        self._idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, lead_in: float, seconds: float, in_flight: int) -> None:
        """Keep the calls in flight for so long, and count what is answered after the lead-in."""
        self._idle = asyncio.get_running_loop().create_future()
        self.calls, self._in_flight = 0, in_flight
        self._since = perf_counter() + lead_in
        self._until = self._since + seconds
        for number in range(in_flight):
            self.links[number % len(self.links)].send()
        await asyncio.wait_for(self._idle, lead_in + seconds + _PATIENCE_S)

    def answered(self, link: Link, size: int) -> None:
        """A call in flight ended with an answer of so many bytes."""
        if size != self._answer_size:
            if self._answer_size is not None or size == 0:
                self.failed(f"an answer of {size} bytes instead of {self._answer_size}")
                return
            self._answer_size = size
        now = perf_counter()
        if now < self._until:
            self.calls += now >= self._since
            link.send()
            return
        self._in_flight -= 1
        if self._in_flight == 0 and not self._idle.done():
            self._idle.set_result(None)

    def failed(self, reason: str) -> None:
        """Nothing further can be measured."""
        if not self._idle.done():
            self._idle.set_exception(ConnectionError(reason))


class Http1(asyncio.Protocol):
    """A connection of HTTP/1.1 that is kept, with one call in flight."""

    def __init__(self, request: bytes, loop: Loop) -> None:
        self._request = request
        self._loop = loop
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self) -> None:
        self._transport.write(self._request)  # type: ignore[attr-defined] # asyncio's own wide type

    def data_received(self, data: bytes) -> None:
        self._read += data
        head = self._read.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self._read[: head + 2].lower()
        at = lower.find(b"\r\ncontent-length:")
        if at < 0 or not lower.startswith(b"http/1.1 200"):
            self._loop.failed(self._read[:300].decode("latin-1"))
            return
        size = int(lower[at + 17 : lower.find(b"\r\n", at + 17)])
        if len(self._read) >= head + 4 + size:
            self._read = b""
            self._loop.answered(self, size)

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.failed(f"the server closed the connection: {exc}")


# RFC 9113, section 6: types of frames, and flags.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_FRAME, _WINDOW, _LARGEST = 16384, 65535, 2**31 - 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _fields(authority: str) -> bytes:
    """The request's header fields (RFC 7541): indexed, or as they are, so that every request has the same bytes."""

    def text(value: bytes) -> bytes:
        return bytes([len(value)]) + value

    return b"".join(
        [
            b"\x83\x86",  # :method POST, :scheme http
            b"\x01" + text(authority.encode()),
            b"\x04" + text(METHOD),
            b"\x0f\x10" + text(b"application/grpc"),  # content-type
            b"\x00" + text(b"te") + text(b"trailers"),
        ]
    )


class Grpc(asyncio.Protocol):
    """A connection of HTTP/2 that carries gRPC calls, as many at a time as are sent."""

    def __init__(self, authority: str, message: bytes, loop: Loop) -> None:
        self._loop = loop
        self._read = b""
        self._stream = 1
        self._sizes: dict[int, int] = {}  # bytes answered so far, by stream
        body = b"\x00" + struct.pack(">I", len(message)) + message
        if len(body) > _WINDOW:
            msg = f"a request of {len(body)} bytes does not fit a stream's first window"
            raise ValueError(msg)
        parts = [body[at : at + _FRAME] for at in range(0, len(body), _FRAME)]
        frames = [_frame(_HEADERS, _END_HEADERS, 0, _fields(authority))]
        frames += [_frame(_DATA, 0, 0, part) for part in parts[:-1]]
        frames += [_frame(_DATA, _END_STREAM, 0, parts[-1])]
        # Only the number of the stream differs, the last four bytes of each frame's head: it joins what is between.
        heads, payloads = [frame[:5] for frame in frames], [frame[9:] for frame in frames]
        self._between = [before + after for before, after in zip([b"", *payloads], [*heads, b""], strict=True)]
        self._body_size = len(body)
        self._window = _WINDOW
        self._waiting = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write: Callable[[bytes], None] = transport.write  # type: ignore[attr-defined] # asyncio's own wide type
        settings = struct.pack(">HI", 4, _LARGEST)  # each stream's window for answers
        self._write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, settings))
        self._write(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST - _WINDOW)))

    def send(self) -> None:
        self._waiting += 1
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and self._window >= self._body_size:
            self._waiting -= 1
            self._window -= self._body_size
            self._write(struct.pack(">I", self._stream).join(self._between))
            self._stream += 2

    def data_received(self, data: bytes) -> None:
        read, at = self._read + data if self._read else data, 0
        while len(read) - at >= 9:
            size, kind, flags = int.from_bytes(read[at : at + 3], "big"), read[at + 3], read[at + 4]
            if len(read) - at < 9 + size:
                break
            stream = int.from_bytes(read[at + 5 : at + 9], "big")
            self._received(kind, flags, stream, read[at + 9 : at + 9 + size])
            at += 9 + size
        self._read = read[at:]

    def _received(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._sizes[stream] = self._sizes.get(stream, 0) + len(payload)
        elif kind in {_PING, _SETTINGS} and not flags & _ACK:
            self._write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
            self._send_waiting()
        elif kind in {_RST_STREAM, _GOAWAY}:
            self._loop.failed(f"the server ended stream {stream}: {payload!r}")
        if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
            # A call that failed has no data: its status is in the header fields alone.
            self._loop.answered(self, self._sizes.pop(stream, 0))

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.failed(f"the server closed the connection: {exc}")


async def _main(protocol: str, url: str, request: bytes, in_flight: int, seconds: float) -> None:
    loop, running = Loop(), asyncio.get_running_loop()
    host, _, port = url.partition(":")
    kind: Callable[[], Http1 | Grpc] = lambda: Http1(request, loop)  # noqa: E731
    if protocol == "grpc":
        kind = lambda: Grpc(url, request, loop)  # noqa: E731
    for _ in range(in_flight if protocol == "http" else 1):
        _, link = await running.create_connection(kind, host, int(port))
        loop.links.append(link)
    await loop.run(0, 0, in_flight)
    print("ready", flush=True)  # noqa: T201 - to the benchmark
    await running.run_in_executor(None, sys.stdin.readline)
    await loop.run(_LEAD_IN_S, seconds, in_flight)
    print(loop.calls, seconds, flush=True)  # noqa: T201 - likewise


if __name__ == "__main__":
    name, address, file, calls, duration = sys.argv[1:]
    asyncio.run(_main(name, address, Path(file).read_bytes(), int(calls), float(duration)))
