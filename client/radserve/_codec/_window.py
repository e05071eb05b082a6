"""How many inputs are worked on ahead of the answers that the caller has taken."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import numpy as np

from radserve.errors import InputError
from radserve.results import Progress, Rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sized

    from radserve.results import Result

HELD_BYTES = 2**28


class Answering(Protocol):
    """A future or a task."""

    def done(self) -> bool:
        """Whether its answer is there."""
        ...


A = TypeVar("A", bound=Answering)
S = TypeVar("S")


class Window(Generic[A]):
    """Inputs that are worked on, in their order; does no I/O, for threads and for tasks alike.

    No input is taken while as many as allowed, or so many bytes of them, are
    held: who takes answers slowly slows the taking of inputs, too.

    Args:
        items: Most inputs held at a time.
        bytes_: From so many bytes of inputs on, no further one is taken.
    """

    def __init__(self, *, items: int, bytes_: int = HELD_BYTES) -> None:
        self._items = items
        self._bytes = bytes_
        self._held: deque[tuple[A, int]] = deque()
        self._owed = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_full(self) -> bool:
        """Whether no further input is to be taken."""
        return len(self._held) >= self._items or sum(size for _, size in self._held) >= self._bytes

    @property
    def takes_another(self) -> bool:
        """Whether to take another input before giving an answer.

        One for each answer given, so that the work ahead does not run dry, and
        more while the next answer is not there yet.
        """
        return not self.is_full and (self._owed or not self._held or not self._held[0][0].done())

    @property
    def first(self) -> A:
        """Whose answer is the next to be given."""
        return self._held[0][0]

    def add(self, answering: A, size: int) -> None:
        """Hold one more.

        Args:
            answering: What gives its answer.
            size: Bytes of the input.
        """
        self._held.append((answering, size))
        self._owed = False

    def pop(self) -> A:
        """No longer hold the first."""
        self._owed = True
        return self._held.popleft()[0]


class Counter:
    """Tells a callback how far a run has come.

    Args:
        callback: What to call with each answer; None calls nothing.
        sources: The inputs, which may know how many they are.
    """

    def __init__(self, callback: Callable[[Progress], None] | None, sources: object) -> None:
        self._callback = callback
        self._total = len(sources) if hasattr(sources, "__len__") else None
        self._done = self._failed = 0

    def count(self, answer: Result | Rejection) -> None:
        """One more is about to be given."""
        self._done += 1
        self._failed += isinstance(answer, Rejection)
        if self._callback is not None:
            self._callback(Progress(done=self._done, failed=self._failed, total=self._total))


def check_many(sources: object, workers: int) -> None:
    """Refuse at once what would be refused of every input.

    Raises:
        InputError: ``sources`` is one input instead of many, or nobody is to work on them.
    """
    one = isinstance(sources, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(sources, "file_meta")
    if one or not (hasattr(sources, "__iter__") or hasattr(sources, "__aiter__")):
        msg = (
            "predict_many takes an iterable of inputs: use predict() for one, and for the files of a folder"
            ' predict_many(sorted(Path(folder).glob("*.dcm")))'
        )
        raise InputError(msg)
    if workers < 1:
        msg = "workers must be at least 1"
        raise InputError(msg)


def numbered(sources: Iterable[S], failures: list[Exception]) -> Iterator[tuple[int, S]]:
    """Number inputs from 0; if taking one fails, keep the error for when the answers before it were given."""
    try:
        for index, source in enumerate(sources):
            yield index, kept(source)
    except Exception as error:  # noqa: BLE001 - the caller's own: raised again by who iterates
        failures.append(error)


def kept(source: S) -> S:
    """An input that stays as it is: who gives many may fill the same array again before it was sent."""
    return cast("S", source.copy()) if isinstance(source, np.ndarray | bytearray) else source


def size_of(source: object, *, reads_text: bool) -> int:
    """Bytes of an input, as far as they are known without reading it; 0 of what is none, which who reads it refuses.

    Args:
        source: As for ``predict``.
        reads_text: Whether a str is a report's text, and not a path.
    """
    try:
        if isinstance(source, list | tuple):
            return sum(_size_of_one(one, reads_text=reads_text) for one in source)
        return _size_of_one(source, reads_text=reads_text)
    except Exception:  # noqa: BLE001 - whatever a caller's object does when it is looked at
        return 0


def _size_of_one(source: object, *, reads_text: bool) -> int:
    if isinstance(source, bytes | bytearray) or (reads_text and isinstance(source, str)):
        return len(source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    pixels = source if hasattr(source, "nbytes") else getattr(source, "PixelData", b"")
    return int(pixels.nbytes) if hasattr(pixels, "nbytes") else len(cast("Sized", pixels))
