"""Where a client's processor time goes, for calls that share requests and for a single one."""

from __future__ import annotations

import asyncio
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

from bench.bench_coalesce import MODEL, PIXELS, WARM_UP, options
from bench.report import machine, table, write_section

from radserve import AsyncClient, Client
from radserve._codec import Ask, Coalescer, Group, Item, Prepare, Reply, combine, prepare_step
from radserve._codec._flow import Infer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from radserve import AsyncModel
    from radserve._codec._decode import Answer
    from radserve.contracts import Contract
    from radserve_server import EmbeddedServer

ROUNDS, CALLS, REPEATS = 7, 2048, 2000
IN_FLIGHT = 128


class Canned:
    """An answer of each size that a real server gave, for calls that go nowhere."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], tuple[str, Reply]] = {}

    def remember(self, ask: Ask, reply: Reply) -> None:
        if isinstance(ask.call, Infer):
            self.known[self._size(ask)] = ask.call.request.id, reply

    def reply(self, ask: Ask) -> Reply | None:
        """An answer with this request's own id; None where none of its size is known."""
        if not isinstance(ask.call, Infer) or (found := self.known.get(self._size(ask))) is None:
            return None
        old, reply = found
        ask.call.request.encoded()  # as it would be sent
        message = reply.message.replace(old.encode(), ask.call.request.id.encode())
        return Reply(message=message, endpoint=reply.endpoint)

    @staticmethod
    def _size(ask: Ask) -> tuple[int, ...]:
        return ask.call.request.sizes if isinstance(ask.call, Infer) else ()


async def _concurrent(model: AsyncModel[Any], calls: int) -> None:
    async def caller() -> None:
        for _ in range(calls // IN_FLIGHT):
            await model.predict(PIXELS)

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))


async def _shared(url: str, cap: int) -> tuple[float, float]:
    """µs of a prediction with the server, and with answers that are there already."""
    async with AsyncClient(options=options(url, cap)) as client:
        model = await client.model(MODEL)
        await _concurrent(model, WARM_UP)
        began = process_time()
        await _concurrent(model, CALLS)
        whole = (process_time() - began) / CALLS * 1e6
        canned, real = Canned(), client._session.transport.call

        async def at_once(step: Any, *, timeout_s: float) -> Reply:
            ask = Ask(call=step, timeout_s=timeout_s)
            if (known := canned.reply(ask)) is not None:
                await asyncio.sleep(0)
                return known
            reply = await real(step, timeout_s=timeout_s)
            canned.remember(ask, reply)
            return reply

        client._session.transport.call = at_once  # type: ignore[method-assign]
        await _concurrent(model, WARM_UP)
        began = process_time()
        await _concurrent(model, CALLS)
        return whole, (process_time() - began) / CALLS * 1e6


def _each_us(work: Callable[[], object], count: int = 1) -> float:
    """The least µs that something took, divided by what it did at once."""
    taken = []
    for _ in range(ROUNDS):
        began = process_time()
        for _ in range(REPEATS // count):
            work()
        taken.append((process_time() - began) / (REPEATS // count) / count * 1e6)
    return min(taken)


def _parts(client: Client, contract: Contract, reply: Callable[[Ask], Reply], size: int) -> Iterator[tuple[str, float]]:
    """Each part of a prediction of which so many share a request, in µs, by the SDK's own functions."""
    start = client._session.call
    yield "options, deadline, id", _each_us(lambda: start(None, frame=None, priority=None, queue_timeout_s=None))
    call = start(60.0, frame=None, priority=None, queue_timeout_s=None)
    step = Prepare(contract=contract, source=PIXELS, frame=None, burned_in=None)
    prepared = prepare_step(step)
    yield "check the array", _each_us(lambda: prepare_step(step))
    coalescer = Coalescer(size, largest_bytes=2**30)

    def gather() -> None:
        for _ in range(size):
            item = coalescer.item(contract, prepared.inputs, call, frozenset())
            assert item is not None
            coalescer.add(item)
        while (group := coalescer.take()) is not None:
            coalescer.finish(group, is_answered=False)

    if size > 1:
        yield "gather", _each_us(gather, size)
    group = Group([Item(contract, prepared.inputs, call, frozenset()) for _ in range(size)], 0.0, 0)
    ask = group.ask()

    def write() -> bytes:
        made = group.ask().call
        assert isinstance(made, Infer)
        return made.request.encoded()

    yield "write the request", _each_us(write, size)
    answered = reply(ask)
    yield "check the answer", _each_us(lambda: group.answers(answered), size)
    answer: Answer = group.answers(answered)[0]
    yield "make the findings", _each_us(lambda: combine(contract, prepared, [answer]))


def test_where_a_clients_time_goes(reference_server: EmbeddedServer) -> None:
    url = reference_server.grpc_url
    rows: list[list[str]] = []
    with Client(url) as client:
        contract = client.model(MODEL).contract

        def real(ask: Ask) -> Reply:
            return client._session.transport.call(ask.call, timeout_s=ask.timeout_s)

        for size in (1, 8, 64):
            parts = dict(_parts(client, contract, real, size))
            wholes = [asyncio.run(_shared(url, size if size > 1 else 0)) for _ in range(ROUNDS)]
            whole, own = (median(column) for column in zip(*wholes, strict=True))
            rows += [[str(size), name, f"{taken:.1f}"] for name, taken in parts.items()]
            rows += [
                [str(size), "tasks, futures and the flow between them", f"{own - sum(parts.values()):.1f}"],
                [str(size), "gRPC and the event loop's waiting", f"{whole - own:.1f}"],
                [str(size), "all", f"{whole:.1f}"],
            ]
    lines = [
        f"{machine()} {MODEL} on prepared arrays, {IN_FLIGHT} coroutines: µs of the client's processor time for a",
        f"prediction. All: median of {ROUNDS} rounds of {CALLS} with the server; gRPC is what the same takes less with",
        f"answers that are there already; each part by itself, in a row, the least of {ROUNDS} rounds.",
        "What a larger request saves is gRPC's. What is left is made for each caller alone: its turns, its findings.",
        "Of 64 items the client's µs and those of bare ONNX Runtime together fill two cores before four times as many",
        "are answered as where each goes alone: that is out of reach of one process beside its server.",
        "",
        *table(("items a request", "part", "µs"), rows),
    ]
    write_section("Where a client's time goes", lines)
