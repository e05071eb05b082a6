"""Training of the reference models, on generated data or a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A user's own training data, as the SDK's preprocessing gives it.

    Attributes:
        x: Wire arrays ``(n, *wire shape)``.
        y: Index into the spec's labels, ``(n,)`` int64.
    """

    x: NDArray[np.generic]
    y: NDArray[np.int64]


class Progress(Protocol):
    """Told how far a long work is."""

    def __call__(self, description: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of ``description`` are finished."""
