"""What the kernel under the tests can do."""

from __future__ import annotations

import ctypes

from radserve_export.sandbox._libc import syscall


def has_landlock() -> bool:
    """Whether processes can give up the file system."""
    try:
        return syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) > 0
    except OSError:
        return False
