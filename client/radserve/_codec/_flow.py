"""What a call asks of the outside world, one step after the other.

A flow is a generator that holds all decisions of a call and does no I/O: it
yields steps, is sent what each gave, and gets a step's error thrown in. The
synchronous and the asynchronous client only carry the steps out (as httpx does
for its authentication flows).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from radserve._codec._plain import Plain
from radserve.telemetry import is_told, span

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from radserve._codec._item import Item
    from radserve._codec._prepare import Source
    from radserve._codec._wire import Request
    from radserve.contracts import Contract, Policy
    from radserve.telemetry import Work

T = TypeVar("T")
_UNTOLD = nullcontext()


class _Call(Plain, frozen=True, kw_only=True):
    """A call to a server.

    Attributes:
        avoid: Endpoints that are not to be asked, where there are others.
        endpoint: The only one to ask; None leaves it to the transport.
    """

    avoid: frozenset[str] = frozenset()
    endpoint: str | None = None


class Infer(_Call, frozen=True, kw_only=True):
    """Run one inference.

    Attributes:
        request: What to send.
    """

    request: Request


class ReadConfig(_Call, frozen=True, kw_only=True):
    """Read a model's configuration.

    Attributes:
        model: Its name.
    """

    model: str


class ListModels(_Call, frozen=True, kw_only=True):
    """Names of all loaded models, steps included."""


class IsReady(_Call, frozen=True, kw_only=True):
    """Whether a server says that it takes requests."""


class ReadStatistics(_Call, frozen=True, kw_only=True):
    """Read what a server counted of a model since it was loaded.

    Attributes:
        model: Its name.
    """

    model: str


Call: TypeAlias = Infer | ReadConfig | ListModels | IsReady | ReadStatistics


class Ask(Plain, frozen=True, kw_only=True):
    """Make a call.

    Attributes:
        call: Which.
        timeout_s: How long to wait for its answer.
    """

    call: Call
    timeout_s: float


class Sleep(Plain, frozen=True, kw_only=True):
    """Wait."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Make the arrays of a source: CPU work, for the shell to do inline, in a thread or in a worker process.

    Attributes:
        contract: By which.
        source: As for ``prepare``.
        frame: As for ``prepare``.
        burned_in: As for ``prepare``.
    """

    contract: Contract
    source: Source = field(repr=False)
    frame: int | None = None
    burned_in: Policy | None = None


class Record(Plain, frozen=True, kw_only=True):
    """Write an entry of the audit log; the answer waits for it.

    Attributes:
        write: Writes it.
    """

    write: Callable[[], None]


class Join(Plain, frozen=True, kw_only=True):
    """Run one inference, in one request with others that wait; its Answer is what is sent back.

    Attributes:
        item: What to run.
    """

    item: Item


class Reply(Plain, frozen=True, kw_only=True):
    """What a server answered.

    Attributes:
        message: The response: of Infer a ModelInferResponse's bytes, of ReadConfig a ModelConfig,
            of ListModels a list of names, of IsReady a bool, of ReadStatistics a ModelStatistics for each version.
        endpoint: ``host:port`` of the server that answered.
    """

    message: Any
    endpoint: str


Step: TypeAlias = Ask | Join | Sleep | Prepare | Record
Flow: TypeAlias = Generator[Step, Any, T]


def work_of(flow: Flow[Any]) -> Work:
    """What a flow does, for its span."""
    return cast("Work", getattr(flow, "__name__", "call_flow").removesuffix("_flow"))


def told(step: Ask | Join | Prepare | Record) -> AbstractContextManager[None]:
    """A span around a step, if anybody listens."""
    if not is_told():
        return _UNTOLD
    if isinstance(step, Prepare):
        return span("prepare", model=step.contract.name, version=step.contract.version)
    if isinstance(step, Join):
        return span("infer", model=step.item.contract.name, version=step.item.contract.version)
    if isinstance(step, Record):
        return span("record")
    if isinstance(step.call, Infer):
        request = step.call.request
        return span("infer", model=request.model, version=request.version)
    return span("call", model=step.call.model if isinstance(step.call, ReadConfig | ReadStatistics) else None)
