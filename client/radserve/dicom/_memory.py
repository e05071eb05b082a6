"""Whether it was memory that a decoder lacked, which few of them tell.

A failed allocation leaves ENOMEM in C's ``errno``, and no success clears it. It
is still there when a library has turned the failure into an exception of its
own, and when pydicom has hidden a MemoryError in another.
"""

from __future__ import annotations

import ctypes
import errno
import resource

from radserve.errors import DecodeError

_errno_location = ctypes.CDLL(None)["__errno_location"]  # ctypes.get_errno() is a copy that libraries do not write to
_errno_location.restype = ctypes.POINTER(ctypes.c_int)


class Allocations:
    """This thread's, from the time it was made."""

    def __init__(self) -> None:
        self._errno = _errno_location()
        self._errno[0] = 0

    def failed(self, error: Exception) -> bool:
        """Whether one failed before this error was raised."""
        return isinstance(error, MemoryError) or self._errno[0] == errno.ENOMEM


def out_of_memory() -> DecodeError:
    """Says which limit it was, if this process has one."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    set_limits = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    if not set_limits:
        msg = "there is too little memory to read the file: it is damaged, or too large for this machine"
    else:
        msg = (
            f"the file takes more than {min(set_limits) >> 20} MiB of memory to read, the limit of the process that"
            " reads it: it is damaged, or one for predict(), which sets no limit"
        )
    return DecodeError(msg, is_final=False)
