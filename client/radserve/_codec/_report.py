"""Sources of report texts: a text itself, or a file that holds one."""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radserve._codec._wire import utf8
from radserve.errors import InputError
from radserve.files import read_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.contracts import TextInput

_FILE_NAME = re.compile(
    r"\S+\.(txt|text|md|csv|json|xml|html?|rtf|pdf|docx?|hl7|dcm|dicom|png|jpe?g)", flags=re.IGNORECASE
)
_LONGEST_PATH = 4096


def report_array(source: object, described: TextInput) -> NDArray[np.object_]:
    """The wire's array of one report.

    Args:
        source: Its text; or, in UTF-8, a file's path (no str) or content.
        described: What the model reads.

    Raises:
        InputError: It is none of these, empty or too long, or a str that names a file: the
            model would answer the name.
    """
    if isinstance(source, str):
        encoded = utf8(source)
        if _names_a_file(source):
            msg = (
                "the text is a file's name: give the text itself, or a pathlib.Path"
                " (on the command line, the file without --text)"
            )
            raise InputError(msg)
    elif isinstance(source, os.PathLike | bytes | bytearray | memoryview):
        most = described.max_bytes + len(BOM_UTF8)
        content = read_file(source, most) if isinstance(source, os.PathLike) else bytes(source)
        encoded = content.removeprefix(BOM_UTF8)  # no part of the text, and it would hide the first word
    else:
        msg = f"the model reads a report's text: give a str or a pathlib.Path, not {type(source).__name__}"
        raise InputError(msg)
    if len(encoded) > described.max_bytes:
        msg = f"the report's text is longer than the {described.max_bytes} bytes of UTF-8 that the model accepts"
        raise InputError(msg)
    try:
        is_empty = not encoded.decode().strip()
    except UnicodeDecodeError:
        msg = "the file is not UTF-8 text"
        raise InputError(msg) from None
    if is_empty:
        msg = "the report's text is empty"
        raise InputError(msg)
    return np.array([[encoded]], dtype=object)


def _names_a_file(text: str) -> bool:
    if len(text.splitlines()) != 1 or len(text) > _LONGEST_PATH:
        return False
    if _FILE_NAME.fullmatch(text.strip()):
        return True
    with suppress(OSError, ValueError):  # longer than a name may be, for example
        return Path(text).is_file()
    return False
