"""A cheap client: sends one request, written out beforehand, again and again; run as a program of its own.

Command line: URL, file of the serialised request, calls in flight, seconds. It prints ``ready``, waits
for a line, and prints how many calls were answered and after how many seconds the last one was.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from time import perf_counter

import grpc

METHOD = "/inference.GRPCInferenceService/ModelInfer"


async def _main(url: str, request: bytes, in_flight: int, seconds: float) -> None:
    async with grpc.aio.insecure_channel(url) as channel:
        # Bytes in, bytes out: neither is parsed.
        call = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        await call(request)
        print("ready", flush=True)  # noqa: T201 - to the benchmark
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        began = perf_counter()

        async def worker() -> int:
            calls = 0
            while perf_counter() - began < seconds:
                await call(request)
                calls += 1
            return calls

        calls = sum(await asyncio.gather(*[worker() for _ in range(in_flight)]))
        print(calls, perf_counter() - began, flush=True)  # noqa: T201 - likewise


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), float(sys.argv[4])))
