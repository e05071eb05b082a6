"""Keep pydicom quiet: its warnings, log records and exceptions quote values from the file."""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pydicom.pixels  # noqa: F401 - its loggers must exist before they are silenced

from radserve.dicom._memory import out_of_memory
from radserve.errors import DecodeError, RadserveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

_LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg", "PIL")
_lock = threading.Lock()
_reading = threading.local()


class _WhileReading(logging.Filter):
    """Drops the records of a thread that is reading for radserve, and no others."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - logging's signature
        return not getattr(_reading, "depth", 0)


class _Warnings:
    """Ignores the libraries' warnings while at least one thread reads.

    ``warnings.catch_warnings`` alone is not safe with threads: who leaves last
    would restore what another one had set.
    """

    def __init__(self) -> None:
        self._readers = 0
        self._caught = warnings.catch_warnings()

    def enter(self) -> None:
        with _lock:
            if self._readers == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                for library in (*_LIBRARIES, r"radserve\.dicom"):
                    warnings.filterwarnings("ignore", module=library)
            self._readers += 1

    def leave(self) -> None:
        with _lock:
            self._readers -= 1
            if self._readers == 0:
                self._caught.__exit__(None, None, None)


_warnings = _Warnings()
_filter = _WhileReading()
for _name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _LIBRARIES]:
    logging.getLogger(_name).addFilter(_filter)


@contextmanager
def _quiet() -> Iterator[None]:
    _reading.depth = getattr(_reading, "depth", 0) + 1
    _warnings.enter()
    try:
        yield
    finally:
        _warnings.leave()
        _reading.depth -= 1


def guarded(function: Callable[P, T]) -> Callable[P, T]:
    """Let only radserve's own errors out, stripped of pydicom's exceptions behind them."""

    @wraps(function)
    def guard(*args: P.args, **kwargs: P.kwargs) -> T:
        failure: RadserveError
        with _quiet():
            try:
                return function(*args, **kwargs)
            except RadserveError as error:
                failure = error
            except MemoryError:
                failure = out_of_memory()
            except Exception as error:  # noqa: BLE001 - a hostile file can make pydicom raise anything
                failure = DecodeError(f"the DICOM data contradict themselves ({type(error).__name__} while reading)")
        # Raised here, outside the handlers, so that no exception that quotes values hangs on it.
        failure.__cause__ = failure.__context__ = None
        raise failure

    return guard
