"""What a load test sends, and with how many processes."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from radserve.cli._inputs import Inputs as Named
from radserve.errors import InputError
from radserve.loadtest import Inputs, Scenario, mean_bytes, payloads_of, rows_of, synthetic
from radserve.loadtest._figures import ErrorCount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from radserve.cli._inputs import Item
    from radserve.client import Model
    from radserve.loadtest import Plan

    Arrays = dict[str, NDArray[Any]]

_MOST_WORKERS = 8


def workers_of(scenario: Scenario, concurrency: int | None) -> int:
    """Half of the processors, the other half being the server's where it is on this machine."""
    if scenario in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM):
        return 1
    most = max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)) // 2))
    return min(most, concurrency or 1) if scenario is Scenario.CLOSED_LOOP else most


def payloads_for(served: Model, names: Sequence[str], plan: Plan) -> tuple[list[Arrays], Inputs]:
    """What to send, read or made, and a word about it.

    Raises:
        InputError: None of the files can be used.
    """
    contract = served.contract
    refused: Counter[str] = Counter()
    messages: dict[str, str] = {}
    named = Named.of(names, [], contract) if names else None

    def prepared() -> Iterator[Arrays]:
        for item in named.items if named else ():
            arrays = _prepared(served, item)
            if isinstance(arrays, InputError):
                refused[type(arrays).__name__] += 1
                messages.setdefault(type(arrays).__name__, f"{item.name}: {arrays}")
            else:
                yield arrays

    rows = synthetic(contract, plan.seed) if named is None else rows_of(contract, prepared())
    if not rows:
        msg = f"no input can be sent: {next(iter(messages.values()), 'no file was found')}"
        raise InputError(msg)
    payloads = payloads_of(contract, rows, plan.inputs_per_request)
    return payloads, Inputs(
        is_synthetic=named is None,
        files=len(named.items) if named else 0,
        count=len(rows),
        requests=len(payloads),
        bytes_per_request=mean_bytes(contract, payloads),
        refused=tuple(
            ErrorCount(type=kind, count=count, message=messages[kind]) for kind, count in refused.most_common()
        ),
    )


def _prepared(served: Model, item: Item) -> Arrays | InputError:
    source = item.source()
    try:
        return source if isinstance(source, InputError) else served.prepare(source)
    except InputError as error:
        return error
