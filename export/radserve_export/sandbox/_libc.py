"""The C library's system calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS = 38
PR_SET_PDEATHSIG = 1
_CAPABILITY_VERSION_3 = 0x20080522


def prctl(option: int, *values: object) -> int:
    """``prctl(2)``.

    Raises:
        OSError: The kernel refused.
    """
    padded = (*values, 0, 0, 0, 0)[:4]
    words = (ctypes.c_ulong(value) if isinstance(value, int) else value for value in padded)
    return _checked(_LIBC.prctl(option, *words))


def syscall(number: int, *values: object) -> int:
    """``syscall(2)``.

    Raises:
        OSError: The kernel refused, or knows no such call.
    """
    return _checked(_LIBC.syscall(ctypes.c_long(number), *values))


def unshare(flags: int) -> None:
    """``unshare(2)``.

    Raises:
        OSError: The kernel refused.
    """
    _checked(_LIBC.unshare(flags))


def set_capabilities(kept: int) -> None:
    """``capset(2)`` for this thread: the first 32 capabilities as given, none of the others.

    Raises:
        OSError: They were not this thread's to keep.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_LIBC.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)))


def no_new_privileges() -> None:
    """Without this the kernel takes no restriction from who is not root."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
