"""Takes the file system away from this process for good, but for named folders; landlock(7)."""

from __future__ import annotations

import ctypes
import os
import stat
from typing import TYPE_CHECKING

from radserve_export.sandbox._libc import syscall

if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_ASK_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_TRUNCATE = 1 << 14
_KNOWN_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # by version of the interface; 16 since version 5
_NEWEST_BITS = 16


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def restrict_files(readable: Iterable[str], writable: str) -> None:
    """Let this process read some paths and write below one folder.

    Other processes of the same user, their environment included, are out of
    reach as well.

    Args:
        readable: Files and folders; those that are not there are passed over.
        writable: A folder.

    Raises:
        OSError: The kernel has no Landlock (before 5.13, or switched off).
    """
    version = syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))
    handled = (1 << _KNOWN_BITS.get(version, _NEWEST_BITS)) - 1
    rules = _Ruleset(handled)
    ruleset = syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        _allow(ruleset, os.devnull, handled & (_READ_FILE | _WRITE_FILE | _TRUNCATE))
        _allow(ruleset, writable, handled & ~(_EXECUTE | _MAKE_CHAR | _MAKE_SOCK | _MAKE_BLOCK))
        syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            access &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        rule = _Beneath(access, opened)
        syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(opened)
