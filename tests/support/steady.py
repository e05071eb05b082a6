"""A client that sends many requests of many kinds, and tells after each hundredth part: a program.

Its arguments: URL REQUESTS KEPT_BYTES MODEL…

KEPT_BYTES of each request it keeps for ever: more than 0 makes it a client that leaks.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from support.datasets import TEST_FILES

from radserve import AsyncClient, RadserveError
from radserve.options import ClientOptions

if TYPE_CHECKING:
    from radserve import AsyncModel

_IN_FLIGHT = 16
_ONE_FAILS_OF = 25
_FILE = TEST_FILES / "CT_small.dcm"


async def main(url: str, requests: int, kept_bytes: int, names: list[str]) -> None:
    """Send them."""
    content, kept, numbers = _FILE.read_bytes(), [], itertools.count(1)
    async with AsyncClient(options=ClientOptions(endpoints=(url,), coalesce=0)) as client:
        models = [await client.model(name) for name in names]
        faulty = await client.model("faulty")

        async def work() -> None:
            for number in itertools.takewhile(lambda one: one <= requests, numbers):
                if number % _ONE_FAILS_OF:
                    await _ask(models[number % len(models)], number, content)
                else:
                    await _fail(faulty, number)
                if kept_bytes:
                    kept.append(bytes(kept_bytes))
                if number % (requests // 100) == 0:
                    print(number, flush=True)  # noqa: T201 - told to the parent

        await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))


async def _ask(model: AsyncModel[Any], number: int, content: bytes) -> None:
    if model.contract.input is not None:
        assert (await model.predict(content)).findings
    else:
        x = np.full((1, 4), number, np.float32)
        assert (await model.infer({"X": x}))["Y"][0, 0] == x[0, 0] + 1


async def _fail(faulty: AsyncModel[Any], number: int) -> None:
    """A request that the model refuses, raises on or has no room for."""
    x = np.array([[0, number % 2, (number + 1) % 2, 0]], np.float32)
    try:
        await faulty.infer({"X": x})
    except RadserveError:
        return
    raise AssertionError


if __name__ == "__main__":
    url, requests, kept_bytes, *names = sys.argv[1:]
    asyncio.run(main(url, int(requests), int(kept_bytes), names))
