"""Three times as many requests as replicas can answer, through the real gateway."""

from __future__ import annotations

import asyncio
import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.figures import tell
from support.memory import resident_bytes
from support.overload import QUEUES, in_turn, when_due, write_slow

from radserve import AsyncClient
from radserve.options import ClientOptions
from radserve_server.cluster import Cluster
from radserve_server.stubs import stubs_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.overload import Outcome

    from radserve import AsyncModel

_REPLICAS = 2
_CALLERS = 16
_IN_FLIGHT = 64
_TURNS = 3
_MEASURED_S = 4.0
_BURST_S = 6.0
_WINDOW_S = 0.5
_GROWTH_BYTES = 32 * 2**20


class _Turn(NamedTuple):
    saturation: float
    burst: Outcome
    recovery_s: float
    after: float

    @property
    def goodput(self) -> float:
        """Of what the replicas can do."""
        return self.burst.rate(_BURST_S / 6) / self.saturation


async def _turn(model: AsyncModel, seed: int) -> _Turn:
    saturation = (await in_turn(model, _CALLERS, _MEASURED_S)).rate()
    burst = await when_due(model, 3 * saturation, _BURST_S, timeout_s=20, seed=seed)
    after = await in_turn(model, _CALLERS, _MEASURED_S)
    ends = [_WINDOW_S * number for number in range(1, int(_MEASURED_S / _WINDOW_S) + 1)]
    recovery_s = next((end for end in ends if after.rate(end - _WINDOW_S, end) >= 0.9 * saturation), math.inf)
    return _Turn(saturation, burst, recovery_s, after.rate())


def _memory(cluster: Cluster) -> int:
    """Of gateway, servers and stubs together."""
    stubs = [stub.pid for server in cluster.servers for stub in stubs_of(server.pid, server.repository)]
    return sum(map(resident_bytes, [cluster.envoy.pid, *(server.pid for server in cluster.servers), *stubs]))


@pytest.mark.chaos
@pytest.mark.parametrize("queue", QUEUES)
def test_goodput_stays_the_rest_is_refused_at_once_and_afterwards_all_is_as_before(tmp_path: Path, queue: str) -> None:
    write_slow(tmp_path, queue)
    bounds = {"requests_per_s": 10**6, "burst": 10**6, "max_requests": _IN_FLIGHT}

    async def turns(cluster: Cluster) -> list[_Turn]:
        options = ClientOptions(endpoints=(cluster.url,), tls=cluster.tls)
        async with AsyncClient(options=options) as client:
            model = await client.model("slow")
            await in_turn(model, _CALLERS, 1)
            return [await _turn(model, seed) for seed in range(_TURNS)]

    with Cluster(tmp_path, replicas=_REPLICAS, gateway=bounds) as cluster:
        before = _memory(cluster)
        told = asyncio.run(turns(cluster))
        grown = _memory(cluster) - before
    for turn in told:
        answered, refused = (
            sorted(times) for times in (turn.burst.latencies, turn.burst.failed["ServerOverloadedError"])
        )
        tell(
            saturation_per_s=turn.saturation,
            goodput_of_it=turn.goodput,
            answered=len(answered),
            refused=len(refused),
            p50_of_an_answer_s=statistics.median(answered),
            p50_of_a_refusal_s=statistics.median(refused),
            recovery_s=turn.recovery_s,
            afterwards_of_it=turn.after / turn.saturation,
        )
        assert turn.burst.failed.keys() == {"ServerOverloadedError"}
        assert turn.burst.wrong == 0
        assert turn.recovery_s < math.inf
        assert statistics.median(refused) < statistics.median(answered) / 3
    assert statistics.median(turn.goodput for turn in told) >= 0.9
    assert statistics.median(turn.after / turn.saturation for turn in told) >= 0.9
    tell(memory_grew_mib=grown / 2**20)
    assert grown < _GROWTH_BYTES
