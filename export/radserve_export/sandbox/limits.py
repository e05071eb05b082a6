"""What reading a model may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the process that reads a model.

    Attributes:
        memory_gib: Private memory, TensorFlow's own 0.4 GiB included.
        time_s: Wall-clock time to load and convert, and again of each batch of the comparison.
    """

    memory_gib: float = 8.0
    time_s: float = 900.0


DEFAULT_LIMITS = Limits()
