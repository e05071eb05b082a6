"""Files of the caller: read bounded, and nothing that is told of them names a patient; written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from pathlib import Path

from radserve.errors import InputError

_MOST_LINKS = 40  # as Linux
_FOLDER = "the path is a folder: give one file, or predict_many(sorted(Path(folder).iterdir()))"


def read_file(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Read a regular file.

    Args:
        path: Where it is.
        most_bytes: The most that the caller takes.

    Returns:
        Its content; of a larger file ``most_bytes + 1`` bytes, enough to tell.

    Raises:
        InputError: There is none that can be read. Where that may change, ``is_final`` is false.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            msg = _FOLDER if stat.S_ISDIR(status.st_mode) else "the path is not that of a regular file"
            raise InputError(msg)
        with Path(path).open("rb") as file:
            return file.read(min(status.st_size, most_bytes) + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        # The path may hold a patient's name: only the reason is told.
        reason = error.strerror if isinstance(error, OSError) else "the path is not valid"
        msg = f"the file cannot be read: {reason}"
        raise InputError(msg, is_final=not isinstance(error, OSError)) from None


def write_file(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a file; what is there already stays until all of the new one is on the disk.

    Args:
        path: Where to; a link is followed, and a pipe, a device or a stream of this process (``/dev/stdout``) is
            written to as it is.
        content: All of it.

    Raises:
        InputError: It cannot be written, for example to a full disk.
    """
    try:
        place = _followed(Path(path))
        stream = _stream(place)
        if stream is not None:
            sys.stdout.flush()  # what was printed before stands before
            with os.fdopen(os.dup(stream), "wb") as file:
                file.write(content)
        elif place.exists() and not place.is_file():
            place.write_bytes(content)
        else:
            _replace(place, content)
    except OSError as error:
        msg = f"cannot write to {path}: {error.strerror}"
        raise InputError(msg) from error


def _followed(path: Path) -> Path:
    """Where links lead to, but for those of ``/proc``: a stream's may name what is no path."""
    for _ in range(_MOST_LINKS):
        if not path.is_symlink() or _stream(path) is not None:
            return path
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _stream(path: Path) -> int | None:
    """The number of an open file of this process, if the path is that of one."""
    is_one = path.name.isdecimal() and os.path.realpath(path.parent) == os.path.realpath("/proc/self/fd")
    return int(path.name) if is_one else None


def _replace(place: Path, content: bytes | memoryview) -> None:
    new = place.with_name(f".{secrets.token_hex(8)}.new")
    there = place.stat() if place.exists() else None
    try:
        # Nobody reads it meanwhile who may not read what is there.
        made = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if there else 0o666)
        with os.fdopen(made, "wb") as file:
            file.write(content)
            if there:
                os.fchmod(file.fileno(), _mode(file.fileno(), there))
            file.flush()
            os.fsync(file.fileno())
        new.replace(place)
    finally:
        new.unlink(missing_ok=True)


def _mode(file: int, there: os.stat_result) -> int:
    """The mode of what is there for a new file, which is given its group; where it cannot be, that of no group."""
    mode = stat.S_IMODE(there.st_mode)
    if os.fstat(file).st_gid == there.st_gid:
        return mode
    try:
        os.fchown(file, -1, there.st_gid)
    except PermissionError:
        return mode & ~stat.S_IRWXG
    return mode
