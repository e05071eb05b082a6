"""What radserve tells of its work: spans of OpenTelemetry, records of ``logging``, metrics; nothing of a patient.

Only names of models, numbers and the types of errors are told: never a message,
a path or a value that was read. OpenTelemetry is used where the application has
imported it; radserve itself never does.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from radserve.contracts import Contract

# What a caller asks for, then what is done for it.
Work = Literal[
    "predict",
    "infer",
    "health",
    "wait",
    "models",
    "contract",
    "prepare",
    "read",
    "decode",
    "preprocess",
    "call",
    "record",
]
_log = logging.getLogger("radserve")


def one_line(text: str) -> str:
    """A text whose line ends, control characters and the like are escaped: it cannot pass for another line of a log."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def is_told() -> bool:
    """Whether anybody listens."""
    return "opentelemetry.trace" in sys.modules or _log.isEnabledFor(logging.DEBUG)


class Watcher(Protocol):
    """Is told what is done in this process: see ``radserve.metrics``."""

    def asked(self, model: str, outcome: str, seconds: float) -> None:
        """A call ended, with ``ok`` or an error's class."""

    def prepared(self, model: str, seconds: float) -> None:
        """An input was prepared, or could not be."""

    def answered(self, contract: Contract, levels: Iterable[float], scores: Iterable[Mapping[str, float]]) -> None:
        """An input of these levels was answered, each image of it with a probability for each label."""


_watchers: list[Watcher] = []


def watch(watcher: Watcher | None) -> None:
    """Tell somebody from now on what is done; None tells nobody."""
    _watchers[:] = [] if watcher is None else [watcher]


def watcher() -> Watcher | None:
    """Who is told."""
    return next(iter(_watchers), None)


def traceparent() -> tuple[tuple[str, str], ...]:
    """What tells a server under which span it works: metadata of W3C Trace Context; none of a span that nobody keeps.

    Baggage, where applications put identifiers, is not sent.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ()
    context = trace.get_current_span().get_span_context()
    # Triton keeps a span for whatever has this header, even if it says that this one is not to be kept.
    if not context.is_valid or not context.trace_flags.sampled:
        return ()
    return (("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-01"),)


def current_span() -> Any:  # noqa: ANN401 - OpenTelemetry's, which may not be installed
    """The span that is under way here, for ``under``; None where nobody traces."""
    trace = sys.modules.get("opentelemetry.trace")
    return None if trace is None else trace.get_current_span()


@contextmanager
def under(spans: Sequence[Any]) -> Iterator[None]:
    """Do something under the first of some spans, wherever it is done; the others, which share it, link to that one.

    Of spans of which some are kept and some are not, as where one trace in ten is, it is the first that is kept.

    Args:
        spans: What ``current_span`` gave.
    """
    trace = sys.modules.get("opentelemetry.trace")
    begun = [one for one in spans if one is not None]
    if trace is None or not begun:
        yield
        return
    first = next((one for one in begun if one.get_span_context().trace_flags.sampled), begun[0])
    for other in begun:
        if other is not first and hasattr(other, "add_link"):  # an older OpenTelemetry's has not
            other.add_link(first.get_span_context())
    with trace.use_span(first, record_exception=False, set_status_on_exception=False):
        yield


class span:  # noqa: N801 - read as a verb: with span("read")
    """Tells that something is done, how long it took and whether it failed; a context manager.

    Args:
        work: What; the span is called ``radserve.WORK``.
        model: The public model's name.
        version: Its version.
    """

    def __init__(self, work: Work, *, model: str | None = None, version: int | None = None) -> None:
        self._work = work
        self._model = model
        self._version = version

    @property
    def _attributes(self) -> dict[str, str | int]:
        model = None if self._model is None else one_line(self._model)
        known = {"radserve.model": model, "radserve.version": self._version}
        return {name: value for name, value in known.items() if value is not None}

    def __enter__(self) -> None:
        self._begin = time.perf_counter()
        self._trace = sys.modules.get("opentelemetry.trace")
        if self._trace is not None:
            # An exception's message and traceback, which OpenTelemetry would record, may hold paths of the caller's.
            options = {"record_exception": False, "set_status_on_exception": False}
            tracer = self._trace.get_tracer("radserve")
            self._current = tracer.start_as_current_span(
                f"radserve.{self._work}", attributes=self._attributes, **options
            )
            self._span = self._current.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = "done" if kind is None else kind.__name__
        if self._trace is not None:
            if kind is not None:
                self._span.set_attribute("error.type", outcome)
                self._span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
            self._current.__exit__(None, None, None)
        if _log.isEnabledFor(logging.DEBUG):
            told = " ".join(f"{name.partition('.')[2]}={value}" for name, value in self._attributes.items())
            taken_ms = (time.perf_counter() - self._begin) * 1e3
            _log.debug("%s %s: %s after %.1f ms", self._work, told, outcome, taken_ms)


class request(span):  # noqa: N801 - read as a verb
    """As ``span``, of what an application asks of a model: who watches is told of it, too."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._model is not None and (told := watcher()) is not None:
            told.asked(self._model, "ok" if kind is None else kind.__name__, time.perf_counter() - self._begin)
