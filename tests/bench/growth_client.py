"""A client with many connections that keeps some requests in flight; run as a program of its own.

Command line: URL, file of the serialised request, connections, requests in flight. It connects them all, each
by a first answer, and prints ``ready``. For each line it then reads, a number of seconds, it sends for so long,
and prints as JSON what was answered after the first fifth: seconds, latencies in µs, failures by code.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import grpc

METHOD = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]  # a connection for each
CONNECTING, TIMEOUT_S = 16, 60.0
LEAD = 0.2


async def turn(calls: list[Any], in_flight: int, seconds: float) -> dict[str, Any]:
    """Keep so many requests in flight, each worker over its own connections in turn."""
    begin = perf_counter()
    counted, end = begin + LEAD * seconds, begin + seconds
    latencies: list[int] = []
    failed: Counter[str] = Counter()

    async def worker(number: int) -> None:
        for call in cycle(calls[number % len(calls) :: in_flight]):
            sent = perf_counter()
            if sent > end:
                return
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                failed[f"{error.code().name}: {error.details()}"] += 1
                continue
            now = perf_counter()
            if counted < now <= end:
                latencies.append(round((now - sent) * 1e6))

    await asyncio.gather(*map(worker, range(in_flight)))
    return {"seconds": end - counted, "latencies_us": latencies, "failed": failed}


async def main(url: str, request: bytes, connections: int, in_flight: int) -> None:
    """Connect, then measure whenever told."""
    channels = [grpc.aio.insecure_channel(url, options=OPTIONS) for _ in range(connections)]

    def call_of(channel: grpc.aio.Channel) -> Any:
        # Bytes in, bytes out: neither is parsed.
        method = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        return lambda: method(request, timeout=TIMEOUT_S)

    calls = [call_of(channel) for channel in channels]
    at_once = asyncio.Semaphore(CONNECTING)

    async def connect(call: Any) -> None:
        async with at_once:
            await call()

    await asyncio.gather(*map(connect, calls))
    print("ready", flush=True)  # noqa: T201 - to the benchmark
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await turn(calls, in_flight, float(line))), flush=True)  # noqa: T201 - likewise
    await asyncio.gather(*(channel.close(None) for channel in channels))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), int(sys.argv[4])))
