"""Figures that tests measure, for the table of faults."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def tell(**figures: object) -> None:
    """Print figures of the running test, and add them to the file that RADSERVE_FIGURES names."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    rounded = {name: round(one, 4) if isinstance(one, float) else one for name, one in figures.items()}
    line = json.dumps({"test": test, **rounded})
    print(line)  # noqa: T201 - pytest shows it to who asks with -rP
    if path := os.environ.get("RADSERVE_FIGURES"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


@contextmanager
def timed(figure: str) -> Iterator[None]:
    """Tell how many seconds something took, whatever it raises."""
    begin = time.monotonic()
    try:
        yield
    finally:
        tell(**{figure: time.monotonic() - begin})
