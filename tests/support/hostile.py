"""A client of HTTP/2 that keeps no rule but those it is told to: what no library of gRPC would send."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INFER = "/inference.GRPCInferenceService/ModelInfer"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_INITIAL_WINDOW = 4
_LARGEST = 2**14


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame of RFC 9113, section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(stream: int, path: str = INFER, *, flags: int = _END_HEADERS, **more: str) -> bytes:
    """The head of a call, its fields as literals (RFC 7541, section 6.2.2)."""
    fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "triton"}
    fields |= {"content-type": "application/grpc", "te": "trailers"} | more
    texts = [text.encode() for field in fields.items() for text in field]
    lengths = [bytes([len(text)]) for text in texts]
    assert all(len(text) < 127 for text in texts)  # longer ones need more bytes of length
    pairs = [length + text for length, text in zip(lengths, texts, strict=True)]
    block = b"".join(b"\0" + name + value for name, value in zip(pairs[::2], pairs[1::2], strict=True))
    return frame(_HEADERS, flags, stream, block)


def flood(kind: str) -> Iterator[bytes]:
    """Frames without an end, each of which costs its receiver more than its sender.

    Args:
        kind: pings, settings, resets (calls that are given up at once), continuations (a head that goes on and on),
            or nothings (frames without content).
    """
    yield PREFACE + frame(_SETTINGS, 0, 0)
    if kind in {"continuations", "nothings"}:
        yield headers(1, flags=0 if kind == "continuations" else _END_HEADERS)
    for stream in count(3, 2):
        yield {
            "pings": frame(_PING, 0, 0, bytes(8)),
            "settings": frame(_SETTINGS, 0, 0),
            "resets": headers(stream) + frame(_RESET, 0, stream, (8).to_bytes(4, "big")),
            "continuations": frame(_CONTINUATION, 0, 1, b"\0\x04name\x40" + b"x" * 64),
            "nothings": frame(_DATA, 0, 1),
        }[kind]


@contextmanager
def connected(url: str, folder: Path, name: str | None = "client", *, alpn: str = "h2") -> Iterator[ssl.SSLSocket]:
    """A connection of TLS with a client's certificate, over which nothing has been sent."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.set_alpn_protocols([alpn])
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    with unencrypted(url) as plain, context.wrap_socket(plain, server_hostname=url.rpartition(":")[0]) as encrypted:
        yield encrypted


@contextmanager
def unencrypted(url: str) -> Iterator[socket.socket]:
    """A connection over which nothing has been sent."""
    host, _, port = url.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def is_closed(connection: socket.socket, within_s: float = 30) -> bool:
    """Whether the other side ends a connection in time, whatever it says before."""
    connection.settimeout(within_s)
    try:
        while connection.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:  # reset, or an alert of TLS
        return True
    return True


class Calls:
    """Calls over one connection whose messages are sent piece by piece, as flow control lets them.

    Args:
        connection: As ``connected`` gives it.

    Attributes:
        ended: Streams that the server reset.
    """

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._received = b""
        self._at_first = 2**16 - 1
        self._windows: dict[int, int] = {0: self._at_first}
        self.ended: set[int] = set()
        connection.sendall(PREFACE + frame(_SETTINGS, 0, 0))

    def begin(self, stream: int) -> None:
        """Open a stream, and claim that a message of the largest size follows."""
        self._windows[stream] = self._at_first
        self._connection.sendall(headers(stream) + frame(_DATA, 0, stream, b"\0" + b"\x7f" + b"\xff" * 3))

    def send(self, stream: int, length: int) -> int:
        """Send zeros, until all are sent or the server wants no more of them.

        Returns:
            How many were sent.
        """
        sent = 0
        piece = bytes(_LARGEST)
        with suppress(ConnectionError, ssl.SSLError):
            while sent < length and stream not in self.ended:
                if min(self._windows[0], self._windows[stream]) < _LARGEST:
                    self._read()
                    continue
                self._connection.sendall(frame(_DATA, 0, stream, piece))
                sent += _LARGEST
                self._windows[0] -= _LARGEST
                self._windows[stream] -= _LARGEST
            return sent
        self.ended.add(stream)
        return sent

    def _read(self) -> None:
        if not (content := self._connection.recv(2**16)):
            raise ConnectionResetError
        self._received += content
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + length:
                return
            kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
            payload, self._received = self._received[9 : 9 + length], self._received[9 + length :]
            self._take(kind, flags, stream, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW:
            self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == _RESET or (kind == _HEADERS and flags & _END_STREAM):
            self.ended.add(stream)
        elif kind == _GOAWAY:
            raise ConnectionResetError
        elif kind == _PING and not flags & _ACK:
            self._connection.sendall(frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _INITIAL_WINDOW:
                    grown = value - self._at_first
                    self._at_first = value
                    self._windows = {one: left + grown * (one > 0) for one, left in self._windows.items()}
            self._connection.sendall(frame(_SETTINGS, _ACK, 0))
