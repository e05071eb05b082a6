"""The benchmarks' results, one section for each benchmark, in results.md."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).with_name("results.md")
_HEAD = "# Benchmarks\n\nWritten by `make bench`.\n"


def be_as_nice_as_usual() -> None:
    """Have a niceness of 0 at least: Triton gives it to its threads, which beside less nice clients would starve."""
    os.setpriority(os.PRIO_PROCESS, 0, max(0, os.getpriority(os.PRIO_PROCESS, 0)))


def machine() -> str:
    """When and where this is."""
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores,"
        f" Python {platform.python_version()}."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, cells))} |" for cells in lines]


def write_section(title: str, lines: Sequence[str]) -> None:
    """Put a section in the place of the one of the same title, or at the end; the others stay."""
    written = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    sections = {part.partition("\n")[0]: part for part in re.split(r"^## ", written, flags=re.MULTILINE)[1:]}
    sections[title] = "\n".join([title, "", *lines, ""])
    text = "\n## ".join([_HEAD, *(part.rstrip("\n") + "\n" for part in sections.values())])
    RESULTS.write_text(text, encoding="utf-8")
    print(f"\n## {sections[title]}")  # noqa: T201 - a benchmark's answer
