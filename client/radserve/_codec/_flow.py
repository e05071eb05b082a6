"""What a call asks of the outside world, one step after the other.

A flow is a generator that holds all decisions of a call and does no I/O: it
yields steps, is sent what each gave, and gets a step's error thrown in. The
synchronous and the asynchronous client only carry the steps out (as httpx does
for its authentication flows).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from tritonclient.grpc import service_pb2

    from radserve._codec._prepare import Source
    from radserve.contracts import Contract

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Infer:
    """Run one inference.

    Attributes:
        request: What to send.
        avoid: Endpoints that are not to be asked, where there are others.
    """

    request: service_pb2.ModelInferRequest
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """Read a model's configuration.

    Attributes:
        model: Its name.
    """

    model: str


@dataclass(frozen=True, kw_only=True)
class ListModels:
    """Names of all loaded models, steps included."""


@dataclass(frozen=True, kw_only=True)
class IsReady:
    """Whether a server says that it takes requests."""


@dataclass(frozen=True, kw_only=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Make the arrays of a source: CPU work, for the shell to do inline, in a thread or in a worker process.

    Attributes:
        contract: By which.
        source: As for ``prepare``.
        frame: As for ``prepare``.
    """

    contract: Contract
    source: Source
    frame: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server answered.

    Attributes:
        message: The response: of Infer a ModelInferResponse, of ReadConfig a ModelConfig,
            of ListModels a list of names, of IsReady a bool.
        endpoint: ``host:port`` of the server that answered.
    """

    message: Any
    endpoint: str


Call: TypeAlias = Infer | ReadConfig | ListModels | IsReady
Step: TypeAlias = Call | Sleep | Prepare
Flow: TypeAlias = Generator[Step, Any, T]
