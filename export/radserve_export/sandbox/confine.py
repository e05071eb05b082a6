"""What the child does to itself before anything else: limits, and rights given up for good."""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from radserve_export.sandbox._landlock import restrict_files
from radserve_export.sandbox._libc import PR_SET_PDEATHSIG, no_new_privileges, prctl, set_capabilities, unshare
from radserve_export.sandbox._seccomp import refuse_system_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILE_BYTES = 4 * 2**30
# What Python, TensorFlow and the C library read of the system.
_SYSTEM = ("/usr", "/lib", "/lib64", "/proc", "/sys", "/dev/urandom", "/dev/random", "/dev/zero")
_SETTINGS = ("/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/mime.types", "/etc/ssl")
_CAP_DAC_READ_SEARCH = 1 << 2
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def confine(*, memory_bytes: int, folder: str, readable: Sequence[str], parent: int) -> None:
    """Give up the network, programs, other processes and the file system.

    Without Landlock files can be read and written as the user could; without
    seccomp a name space takes the network alone.

    Args:
        memory_bytes: Private memory that this process may have.
        folder: Where alone it may write.
        readable: What it may read besides the system's libraries.
        parent: Process that this one must not outlive.

    Raises:
        OSError: The network cannot be given up.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    # Private memory is counted by the kernel itself; the address space of TensorFlow is mostly empty.
    # Processes need no limit: they cannot be started.
    for what, most in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (most, most) if hard == resource.RLIM_INFINITY or most < hard else (hard, hard))
    no_new_privileges()
    # A kernel without Landlock: the network and programs are out of reach all the same.
    with suppress(OSError):
        restrict_files((*_SYSTEM, *_SETTINGS, *readable), folder)
    try:
        _drop_capabilities()
        refuse_system_calls()
    except OSError:
        unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _drop_capabilities() -> None:
    """Root without its powers: only reading stays as it was for the parent."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - little is imported before the filter
        effective = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    set_capabilities(int(effective, 16) & _CAP_DAC_READ_SEARCH)
