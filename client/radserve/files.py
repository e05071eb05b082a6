"""Files of the caller: read bounded, and nothing that is told of them names a patient; written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from pathlib import Path

from radserve.errors import InputError

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
        path: Where to; a link is followed, and a pipe or a device is written to as it is.
        content: All of it.

    Raises:
        InputError: It cannot be written, for example to a full disk.
    """
    place = Path(path)
    try:
        if place.is_symlink():
            place = place.resolve()
        if place.exists() and not place.is_file():
            place.write_bytes(content)
            return
        new = place.with_name(f".{secrets.token_hex(8)}.new")
        try:
            with new.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if place.exists():
                shutil.copymode(place, new)
            new.replace(place)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write to {path}: {error.strerror}"
        raise InputError(msg) from error
