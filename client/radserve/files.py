"""Files of the caller, read whole and bounded; nothing that is told of them names a patient."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.errors import InputError

if TYPE_CHECKING:
    import os

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
