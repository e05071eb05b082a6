"""Takes system calls away from this process for good: no network, no programs, no other processes.

A model is read, traced and run without any of these; seccomp(2). Numbers are
those of the kernel's ``unistd_64.h`` (x86-64) and ``asm-generic/unistd.h``
(aarch64); ``None`` is a call that aarch64 never had.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import NamedTuple

from radserve_export.sandbox._libc import PR_SET_PDEATHSIG, prctl

_REFUSED: dict[str, tuple[int, int | None]] = {
    # The network, and sockets of this machine.
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "listen": (50, 201),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "recvmmsg": (299, 243),
    # It would do all of these, and file access, past this filter.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Programs and processes.
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    # Memory that the limit does not count, or that outlives the process.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # What Landlock leaves open: owners, modes, times and attributes of files.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    # The system itself; most need privileges, and all have been ways to get them.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
}
_FIRST_UNKNOWN = 452  # what kernels gained after 6.6 was not looked at: to this process it is not there

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_CLONE_THREAD = 0x10000
_MAP_SHARED_ANONYMOUS = 0x21
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class _Machine(NamedTuple):
    audit: int  # AUDIT_ARCH_*
    column: int
    clone: int
    clone3: int
    kill: int
    tgkill: int
    mmap: int
    prlimit64: int
    prctl: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 0, 56, 435, 62, 234, 9, 302, 157),
    "aarch64": _Machine(0xC00000B7, 1, 220, 435, 129, 131, 222, 261, 167),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


_Line = tuple[int, int, int, int]


def refuse_system_calls() -> None:
    """Set the filter; threads and whatever else this process starts have it, too.

    Raises:
        OSError: The kernel has no seccomp, or the machine is neither x86-64 nor aarch64.
    """
    lines = _filter(os.getpid())
    instructions = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), instructions)
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))


def _filter(own_pid: int) -> list[_Line]:
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"no filter for {platform.machine()}")
    refused, unknown = _returning(_ERRNO | errno.EPERM), _returning(_ERRNO | errno.ENOSYS)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, machine.audit),
        _returning(_KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        # The x32 calls of x86-64 are among these.
        (_AT_LEAST, 0, 1, _FIRST_UNKNOWN),
        unknown,
        # Its flags are out of a filter's reach: the C library then takes clone.
        (_EQUAL, 0, 1, machine.clone3),
        unknown,
    ]
    for numbers in _REFUSED.values():
        number = numbers[machine.column]
        if number is not None:
            lines += [(_EQUAL, 0, 1, number), refused]
    lines += _unless(machine.clone, 0, [(_ANY_BIT, 1, 0, _CLONE_THREAD)])
    lines += _unless(machine.kill, 0, [(_EQUAL, 1, 0, own_pid)])
    lines += _unless(machine.tgkill, 0, [(_EQUAL, 1, 0, own_pid)])
    lines += _unless(machine.prlimit64, 0, [(_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, own_pid)])
    # It dies with its parent, whatever it wants.
    lines += _unless(machine.prctl, 0, [(_EQUAL, 0, 1, PR_SET_PDEATHSIG)])
    shared = (_AND, 0, 0, _MAP_SHARED_ANONYMOUS), (_EQUAL, 0, 1, _MAP_SHARED_ANONYMOUS)
    lines += _unless(machine.mmap, 3, list(shared))
    return [*lines, _returning(_ALLOW)]


def _returning(action: int) -> _Line:
    return (_RETURN, 0, 0, action)


def _unless(number: int, argument: int, test: list[_Line]) -> list[_Line]:
    """Refuse a call unless a test of an argument's low half jumps past the refusal."""
    body = [
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        *test,
        _returning(_ERRNO | errno.EPERM),
        _returning(_ALLOW),
    ]
    return [(_EQUAL, 0, len(body), number), *body]
