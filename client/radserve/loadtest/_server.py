"""What Triton says of a model's steps, between two moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve._codec import statistics_flow
from radserve.aio._session import AsyncSession, run_async
from radserve.errors import RadserveError
from radserve.loadtest._figures import BatchSize, Step

if TYPE_CHECKING:
    from radserve._codec import Statistics
    from radserve.contracts import Contract
    from radserve.options import ClientOptions

_LIMIT_S = 5.0


class Server:
    """Reads a server's statistics until it fails to tell them; that is noted once, and no reason to stop.

    Args:
        contract: Of the model.
        options: How to reach it.

    Attributes:
        note: Why there are none, if so.
    """

    def __init__(self, contract: Contract, options: ClientOptions) -> None:
        self._contract = contract
        self._session = AsyncSession(options)
        self.note: str | None = None

    async def read(self) -> tuple[Statistics, ...] | None:
        """The statistics as they are now; None where the server does not tell them."""
        if self.note is not None:
            return None
        call = self._session.call(_LIMIT_S)
        flow = statistics_flow(self._contract.name, self._contract.version, call)
        try:
            return await run_async(flow, self._session.transport)
        except RadserveError as error:
            self.note = f"no breakdown by the server: {error}"
            return None

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()


def steps_between(before: tuple[Statistics, ...] | None, after: tuple[Statistics, ...] | None) -> tuple[Step, ...]:
    """What happened between two readings, the ensemble first; nothing where one of them is missing."""
    known = {(one.model, one.version): one for one in before or ()}
    pairs = [(one, known.get((one.model, one.version))) for one in after or ()]
    return tuple(_step(now - then) for now, then in pairs if then is not None)


def _step(made: Statistics) -> Step:
    def mean_s(total_ns: int) -> float:
        return total_ns / max(1, made.requests) / 1e9

    return Step(
        model=made.model,
        version=made.version,
        is_ensemble=made.is_ensemble,
        requests=made.requests,
        failed=made.failed,
        inferences=made.inferences,
        executions=made.executions,
        total_s=mean_s(made.total_ns),
        queue_s=mean_s(made.queue_ns),
        compute_input_s=mean_s(made.compute_input_ns),
        compute_infer_s=mean_s(made.compute_infer_ns),
        compute_output_s=mean_s(made.compute_output_ns),
        batch_sizes=tuple(
            BatchSize(size=size, count=count, infer_s=total_ns / count / 1e9)
            for size, (count, total_ns) in made.batch_sizes.items()
            if count > 0
        ),
    )
