"""Arrays handed to a server on this host through POSIX shared memory, instead of copied over a connection.

A region's file is removed as soon as the server has mapped it (Triton keeps the
mapping), so no crash leaves a file behind. A crash leaves the server's mapping:
the next client removes those of processes that are gone, told by their names.

A region is written again only after the server answered. Otherwise the
request, although given up here, may still be read there, and would read
another patient's pixels: such a region is kept untouched until Triton agrees to
let go of it, which it refuses while a request uses it.
"""

from __future__ import annotations

import itertools
import logging
import mmap
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import msgspec
from tritonclient.grpc import service_pb2

from radserve._transport._calls import Failure, Rpc

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from radserve._codec._wire import Request

    Ask = Callable[[Rpc], Generator[Any, Any, Any]]

_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is, its names are ours alone
_SMALLEST_BYTES = 2**16
_IDLE_BYTES = 2**28
_ALIGNMENT = 64
_START_TIME = 19  # of /proc/PID/stat, counted behind the command's closing parenthesis
_LOST = "Unable to find shared memory region"
_UNREACHED = "failed to connect to all addresses"  # gRPC's own, before anything was sent
_NO_ANSWER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)

_log = logging.getLogger("radserve")
_number = itertools.count()
_given_up: set[str] = set()  # by clients of this process that were closed


@dataclass(eq=False)
class _Region:
    name: str
    memory: mmap.mmap


class SharedMemory:
    """The regions that one server has mapped; thread-safe.

    Args:
        size_limit: No more bytes than this are kept for later requests.
    """

    def __init__(self, *, size_limit: int = _IDLE_BYTES) -> None:
        self._size_limit = size_limit
        self._idle: list[_Region] = []
        self._in_doubt: list[_Region] = []
        self._lock = threading.Lock()
        self._is_tidy = False
        self._is_closed = False

    def infer(self, rpc: Rpc, ask: Ask) -> Generator[Any, Any, Any]:
        """Make an inference whose inputs lie in a region; over the connection where this host has no room for one.

        Args:
            rpc: The inference.
            ask: Makes a call to the server, and gives its response or a Failure.

        Returns:
            The response or a Failure, be it the inference's, the registration's or that of
            taking back what is in doubt: a server that is away is given no further regions.
        """
        failure = yield from self._tidy(ask)
        if failure is not None:
            return failure
        for is_last in (False, True):
            region = self._take(sum(map(_aligned, rpc.request.sizes)))
            if isinstance(region, int):
                try:
                    region = _create(region)
                except OSError as error:
                    _log.warning("no shared memory: %s; inputs go over the connection", error.strerror)
                    return (yield from ask(rpc))
                failure = yield from self._register(region, ask)
                if failure is not None:
                    return failure
            request = _place(rpc.request, region)
            response = yield from self._with(region, ask(msgspec.structs.replace(rpc, request=request)))
            is_lost = isinstance(response, Failure) and _LOST in response.details
            if not is_lost or is_last:
                return response
            self._forget()
        raise AssertionError  # the loop returns

    def regions(self) -> list[str]:
        """Names that the server may know, those that no request uses first."""
        with self._lock:
            return [region.name for region in (*self._idle, *self._in_doubt)]

    def give_up(self) -> None:
        """Leave what the server still holds to whoever calls it next."""
        with self._lock:
            self._is_closed = True
            _given_up.update(region.name for region in (*self._idle, *self._in_doubt))
        self._forget()

    def _take(self, size: int) -> _Region | int:
        """A region that holds as much, or how large a new one should be."""
        with self._lock:
            fitting = [region for region in self._idle if len(region.memory) >= size]
            if not fitting:
                return max(_SMALLEST_BYTES, 1 << (size - 1).bit_length())
            region = min(fitting, key=lambda one: len(one.memory))
            self._idle.remove(region)
            return region

    def _register(self, region: _Region, ask: Ask) -> Generator[Any, Any, Failure | None]:
        """Let the server map a new region, then remove its file."""
        request = service_pb2.SystemSharedMemoryRegisterRequest(
            name=region.name, key=f"/{region.name}", offset=0, byte_size=len(region.memory)
        )
        response = None
        try:
            response = yield from ask(Rpc(method="SystemSharedMemoryRegister", request=request))
        finally:
            (_FOLDER / region.name).unlink(missing_ok=True)
            may_be_mapped = response is None or (_has_no_answer(response) and _UNREACHED not in response.details)
            if may_be_mapped:
                self._put(region, is_safe=False)
        if not isinstance(response, Failure):
            return None
        if not may_be_mapped:
            region.memory.close()
        return response

    def _with(self, region: _Region, call: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        response = None
        try:
            response = yield from call
        finally:
            self._put(region, is_safe=response is not None and not isinstance(response, Failure))
        return response

    def _put(self, region: _Region, *, is_safe: bool) -> None:
        with self._lock:
            idle = sum(len(one.memory) for one in self._idle)
            is_kept = is_safe and idle + len(region.memory) <= self._size_limit
            (self._idle if is_kept else self._in_doubt).append(region)
            is_closed = self._is_closed
        if is_closed:
            self.give_up()

    def _tidy(self, ask: Ask) -> Generator[Any, Any, Failure | None]:
        """Remove what the server need not hold: what is in doubt and, the first time, what dead processes left.

        Returns:
            How a call for it was lost on the way, where one was.
        """
        while (region := self._take_in_doubt()) is not None:
            response = None
            try:
                response = yield from ask(unregister(region.name))
            finally:
                if response is None or isinstance(response, Failure):
                    self._put(region, is_safe=False)
            if isinstance(response, Failure):
                if _has_no_answer(response):
                    return response
                break
            region.memory.close()
        with self._lock:
            is_first, self._is_tidy = not self._is_tidy, True
        if not is_first:
            return None
        _remove_files()
        status = service_pb2.SystemSharedMemoryStatusRequest()
        known = yield from ask(Rpc(method="SystemSharedMemoryStatus", request=status))
        if _has_no_answer(known):
            self._is_tidy = False
            return cast("Failure", known)
        for name in () if isinstance(known, Failure) else [name for name in known.regions if _is_orphan(name)]:
            yield from ask(unregister(name))
        return None

    def _take_in_doubt(self) -> _Region | None:
        """One at a time, so that callers who come meanwhile see the others, and add none of their own."""
        with self._lock:
            return self._in_doubt.pop(0) if self._in_doubt else None

    def _forget(self) -> None:
        """Let go of all regions: the server was started anew and knows none, or the client was closed."""
        with self._lock:
            for region in (*self._idle, *self._in_doubt):
                region.memory.close()
            self._idle, self._in_doubt = [], []


def _has_no_answer(response: object) -> bool:
    """Whether a call failed on the way: the server may have done what it asked for, or not."""
    return isinstance(response, Failure) and response.code in _NO_ANSWER


def unregister(name: str) -> Rpc:
    """The call that makes the server let go of a region."""
    request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
    return Rpc(method="SystemSharedMemoryUnregister", request=request)


def _create(size: int) -> _Region:
    """Make a region, with its memory reserved: writing to one that does not fit would kill the process.

    Raises:
        OSError: There is no room.
    """
    name = f"radserve-{_boot()}-{_namespace()}-{os.getpid()}-{_started(os.getpid())}-{next(_number)}"
    path = _FOLDER / name
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        return _Region(name, mmap.mmap(descriptor, size))
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _place(request: Request, region: _Region) -> service_pb2.ModelInferRequest:
    """A request whose inputs lie in a region."""
    placed = service_pb2.ModelInferRequest.FromString(request.head)
    offset = 0
    for tensor, parts, size in zip(placed.inputs, request.contents, request.sizes, strict=True):
        tensor.parameters["shared_memory_region"].string_param = region.name
        tensor.parameters["shared_memory_offset"].int64_param = offset
        tensor.parameters["shared_memory_byte_size"].int64_param = size
        region.memory.seek(offset)
        for part in parts:
            region.memory.write(part)
        offset += _aligned(size)
    return placed


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _remove_files() -> None:
    """Remove files of processes that died between creating one and its registration."""
    for path in _FOLDER.glob("radserve-*"):
        if _is_orphan(path.name):
            try:
                path.unlink()
            except OSError:  # another user's, or removed meanwhile
                continue


def _is_orphan(name: str) -> bool:
    """Whether a region is nobody's any more, as far as this process can tell."""
    if name in _given_up:
        return True
    parts = name.split("-")
    if len(parts) != 6 or parts[:3] != ["radserve", _boot(), _namespace()] or not parts[3].isdecimal():  # noqa: PLR2004 - as _create names them
        return False
    return _started(int(parts[3])) != parts[4]


def _started(process: int) -> str:
    """When a process was started, in the kernel's ticks; nothing if there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[_START_TIME]


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]


def _namespace() -> str:
    """Of process numbers: in another one they mean other processes."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)
