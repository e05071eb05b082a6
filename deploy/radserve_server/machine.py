"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores(own: Path = _OWN, groups: Path = _GROUPS) -> int:
    """Cores that this process may keep busy: its affinity, and its control groups' limits.

    A container's limit shows in its control group alone; threads beyond it
    would be stopped for most of each period.

    Args:
        own: Names this process' control groups, as ``/proc/self/cgroup``.
        groups: Where control groups are mounted.

    Returns:
        At least 1.
    """
    limits = [float(len(os.sched_getaffinity(0)))]
    try:
        names = [line.split(":", 2)[2].strip("/") for line in own.read_text(encoding="utf-8").splitlines()]
    except (OSError, IndexError):
        names = []
    folders = {
        folder for name in ["", *names] for at in (groups / name, groups / "cpu" / name) for folder in (at, *at.parents)
    }
    limits += [limit for folder in folders if (limit := _limit(folder)) is not None]
    return max(1, math.floor(min(limits)))


def _limit(folder: Path) -> float | None:
    """Cores that one control group allows; None if it sets no limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{part}_us").read_text(encoding="utf-8") for part in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 else None  # "max" in version 2, -1 in version 1: no limit
    except (OSError, ValueError):
        return None
