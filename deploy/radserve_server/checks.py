"""What ``radserve doctor`` says of each thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How a check went."""

    OK = "ok"
    ABSENT = "absent"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What it is.
        status: How it is.
        detail: What was found.
        fix: The command, or the step, that puts it right; empty if nothing has to be.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""
