"""A small service: each line that comes in names a file, each line that goes out answers it, many at a time.

Usage: python async_service.py HOST:PORT MODEL < paths.txt
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from radserve import AsyncClient, AsyncModel, RadserveError

AT_A_TIME = 8


async def answer(model: AsyncModel, path: str, free: asyncio.Semaphore) -> None:
    """Answer one file."""
    async with free:
        try:
            told = (await model.predict(Path(path))).to_dict()
        except RadserveError as error:
            told = {"error": {"type": type(error).__name__, "message": str(error)}}
    print(json.dumps({"input": path, **told}), flush=True)


async def main(url: str, name: str) -> None:
    """Answer until the input ends."""
    free, tasks = asyncio.Semaphore(AT_A_TIME), []
    async with AsyncClient(url) as client:
        model = await client.model(name)
        while line := await asyncio.to_thread(sys.stdin.readline):
            tasks.append(asyncio.create_task(answer(model, line.strip(), free)))
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
