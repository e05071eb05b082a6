"""Answers in a file, so that a run over many inputs may be stopped at any moment and continued.

The file holds JSON lines, one for each input that was answered, or refused
for what it is (``RadserveError.is_final``). A line is written whole or not at
all, only by one run at a time, and never again for the same input. An input
that was not answered for another reason, as a server, a decoder that is not
installed or a full disk, has no line: the next run asks again.

::

    with Journal.open("results.jsonl", model="chest_xray", resume=True) as journal:
        left = [path for path in paths if file_key(path) not in journal]
        for path, answer in zip(left, model.predict_many(left)):
            journal.write(file_key(path), str(path), answer.error if isinstance(answer, Rejection) else answer)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from radserve.errors import InputError, RadserveError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from radserve.results import Result

__all__ = ["Journal", "content_key", "file_key", "to_line"]

_SYNC_S = 1.0
_BLOCK_BYTES = 2**20
_BEGIN = b'{"input": '


def file_key(path: str | os.PathLike[str]) -> str:
    """What tells a file from all others, and from itself after a change: absolute path, size, time of modification.

    Of a folder, those of all files directly in it.

    Raises:
        OSError: It cannot be found.
    """
    place = Path(path)
    files = sorted(one for one in place.iterdir() if one.is_file()) if place.is_dir() else [place]
    states = [(one, one.stat()) for one in files]
    told = [(os.path.abspath(one), state.st_size, state.st_mtime_ns) for one, state in states]  # noqa: PTH100 - resolves no links, as the user names it
    return content_key(json.dumps(told or os.path.abspath(place)).encode())  # noqa: PTH100 - see above


def content_key(content: bytes) -> str:
    """What tells a text, or bytes that have no name, from all others: half of their SHA-256."""
    return hashlib.sha256(content).hexdigest()[:32]


def to_line(plain: dict[str, Any]) -> str:
    r"""One line of JSON that can be written as UTF-8, whatever names are in it; ends in ``\n``."""
    line = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # a file's name need not be text
        line = json.dumps(plain, allow_nan=False)
    return line + "\n"


class Journal:
    """A file of answers that is being written. Made by ``open``; not for several threads at once.

    Attributes:
        path: Where it is.
        refused: How many inputs in it were refused.
        versions: The model versions that answered.
    """

    def __init__(self, path: Path, file: int, model: str, frame: int | None) -> None:
        self.path = path
        self.refused = 0
        self.versions: set[int] = set()
        self._file = file
        self._same = {"model": model, "frame": frame}
        self._keys: set[str] = set()
        self._end = 0
        self._synced = time.monotonic()

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, model: str, frame: int | None = None, resume: bool = False
    ) -> Journal:
        """Open a file for one run, alone.

        What a killed run left of its last line is removed.

        Args:
            path: The file; made, readable by its owner alone, if it is not there.
            model: Whose answers it holds.
            frame: Which frame of each input they are about.
            resume: Continue with what is in it.

        Raises:
            InputError: There is something in it and ``resume`` is not set, another run writes to it, it
                holds something else than answers of this model, or it cannot be opened.
        """
        place = Path(path)
        try:
            file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise _unusable(place, error) from error
        journal = cls(place, file, model, frame)
        try:
            journal._start(resume=resume)
        except BaseException as error:
            os.close(file)
            if isinstance(error, OSError):
                raise _unusable(place, error) from error
            raise
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def write(self, key: str, name: str, answer: Result | RadserveError, **more: Any) -> bool:  # noqa: ANN401 - JSON
        """Add what came of an input.

        Args:
            key: Its ``file_key`` or ``content_key``.
            name: How the caller calls it.
            answer: The answer, or why there is none.
            **more: Further plain values for the line.

        Returns:
            False if nothing was written: the input is in the file, or it may be answered another time.

        Raises:
            RadserveError: It cannot be written, for example to a full disk; the file is as it was before.
        """
        if key in self._keys or (isinstance(answer, RadserveError) and not answer.is_final):
            return False
        plain: dict[str, Any] = {"input": name, "key": key}
        if isinstance(answer, RadserveError):
            plain |= {"model": self._same["model"]}
            plain["error"] = {"type": type(answer).__name__, "message": str(answer)}
        else:
            plain |= answer.to_dict()
        frame = self._same["frame"]
        plain |= more if frame is None else {"frame": frame, **more}
        try:
            self._append(to_line(plain).encode())
        except OSError as error:
            msg = f"{_unusable(self.path, error)}; all answers before are in it: make room, then resume"
            raise RadserveError(msg) from error
        self._note(plain)
        return True

    def close(self) -> None:
        """Let it reach the disk, and let others write to it.

        Raises:
            RadserveError: It did not reach the disk, for example of a server that is full.
        """
        file, self._file = self._file, -1
        if file != -1:
            try:
                os.fsync(file)
            except OSError as error:
                msg = f"{_unusable(self.path, error)}; the last answers may not be in it: make room, then resume"
                raise RadserveError(msg) from error
            finally:
                os.close(file)

    def _append(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            if time.monotonic() - self._synced > _SYNC_S:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except BaseException:  # also when interrupted between two halves
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(line)

    def _start(self, *, resume: bool) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            msg = f"{self.path} is no regular file: name one that a run can continue"
            raise InputError(msg)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another run writes to {self.path}: wait for it, or name another file"
            raise InputError(msg) from None
        except OSError as error:
            raise _unusable(self.path, error) from error
        if not resume and os.fstat(self._file).st_size:
            msg = f"{self.path} is there already: resume what it holds (--resume), or name another file"
            raise InputError(msg)
        for number, line in enumerate(self._lines(), start=1):
            self._note(self._parsed(number, line))
        os.ftruncate(self._file, self._end)
        os.fsync(self._file)
        self._sync_folder()

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        while block := os.pread(self._file, _BLOCK_BYTES, self._end + len(rest)):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self._end += len(line) + 1
                yield line
            torn = rest.rstrip(b"\0")[: len(_BEGIN)]  # after a power failure a file may end in zeros
            if not _BEGIN.startswith(torn):
                yield rest

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            plain = json.loads(line)
            same = {"model": plain["model"], "frame": plain.get("frame")}
            plain["key"] + plain["input"], plain.get("version", 0) + 0  # of these types
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            msg = f"line {number} of {self.path} is no answer of radserve: name another file"
            raise InputError(msg) from None
        if same != self._same:
            msg = f"{self.path} holds answers of another model, or about another frame: name another file"
            raise InputError(msg)
        return cast("dict[str, Any]", plain)

    def _note(self, plain: dict[str, Any]) -> None:
        self._keys.add(plain["key"])
        self.refused += "error" in plain
        if "version" in plain:
            self.versions.add(plain["version"])

    def _sync_folder(self) -> None:
        """Let the file's name reach the disk."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write to {path}: {error.strerror}")
