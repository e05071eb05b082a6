"""Calls that share requests, against a real Triton: whose answer is whose, and what one input can do to others."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton
from support.classifiers import image_contract, set_contract, text_contract, write_classifier
from support.datasets import TEST_FILES

from radserve import AsyncClient, Client, ClientOptions, InferenceFailedError, Priority, Rejection, ServerError, _codec
from radserve.contracts import FixedWindow, ImageInput
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from radserve import AsyncModel
    from radserve.contracts import Contract

CT = TEST_FILES / "CT_small.dcm"
CALLERS = 64
VERSIONS = range(2, 6)
# A report that says so makes the request that it is in fail, or the process die.
FAILING = """
        texts = [row[0] for row in request.inputs()[0].as_numpy()]
        if b"fail" in texts:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("failed"))
        if b"die" in texts:
            open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "deaths"), "a").write("x")
            os._exit(1)
"""


def write_failing(repository: Path) -> None:
    """Write the model ``triage``, whose step fails on each request that holds a report which says so."""
    write_classifier(repository, text_contract())
    step = repository / "triage_step" / "1" / "model.py"
    begin = "    def answer(self, request):\n"
    step.write_text("import os\n" + step.read_text().replace(begin, begin + FAILING))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_classifier(repository, image_contract())
    write_failing(repository)
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


def counts(url: str, name: str) -> tuple[int, int]:
    """How many requests a model answered so far, and how many inputs were in them."""
    with triton.InferenceServerClient(url) as client:
        (found,) = client.get_inference_statistics(name).model_stats
    return found.inference_stats.success.count, found.inference_count


def used(url: str, name: str, use: Callable[[AsyncModel[Any]], Awaitable[Any]], **options: Any) -> tuple[int, int]:
    """Requests and inputs that a model was sent while it was used by one client."""

    async def run() -> None:
        async with AsyncClient(options=ClientOptions(endpoints=(url,), **options)) as client:
            await use(await client.model(name))

    before = counts(url, name)
    asyncio.run(run())
    after = counts(url, name)
    return after[0] - before[0], after[1] - before[1]


def pixels_of(number: int) -> np.ndarray[Any, Any]:
    """An image of its own for each number, of which the model tells the mean."""
    pixels = np.zeros(64, np.uint8)
    pixels[: number // 255] = 255
    pixels[number // 255] = number % 255
    return pixels.reshape(8, 8, 1)


def number_of(result: Any) -> int:
    probability = next(finding.probability for finding in result.findings if finding.label == "bright")
    return round(float(probability) * 255 * 64)


@pytest.mark.parametrize("coalesce", [8, 64])
@pytest.mark.parametrize("shared_memory", [False, True])
def test_answers_reach_their_own_callers_while_others_give_up(
    server: EmbeddedServer,
    coalesce: int,
    shared_memory: bool,  # noqa: FBT001 - a parameter
) -> None:
    chance = random.Random(7)  # noqa: S311 - no secret
    outcomes: Counter[str] = Counter()

    async def one(model: AsyncModel[Any], number: int) -> None:
        task = asyncio.ensure_future(model.predict(pixels_of(number)))
        if chance.random() < 0.3:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.random() * 0.004)
            outcomes["cancelled"] += task.cancel()
        try:
            assert number_of(await task) == number
            outcomes["answered"] += 1
        except asyncio.CancelledError:
            outcomes["given up"] += 1

    async def use(model: AsyncModel[Any]) -> None:
        async def caller(first: int) -> None:
            for turn in range(10):
                await one(model, first + CALLERS * turn)

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))

    requests, inputs = used(server.grpc_url, "brightness", use, coalesce=coalesce, shared_memory=shared_memory)
    assert outcomes["answered"] + outcomes["given up"] == 10 * CALLERS
    assert outcomes["given up"] == outcomes["cancelled"] > 0
    assert inputs >= outcomes["answered"]
    assert requests < inputs


@pytest.mark.parametrize("workers", [4, 16])
def test_threads_share_requests_too_and_the_order_is_kept(server: EmbeddedServer, workers: int) -> None:
    with Client(server.grpc_url) as client:
        before = counts(server.grpc_url, "brightness")
        answers = client.model("brightness").predict_many((pixels_of(number) for number in range(400)), workers=workers)
        assert [number_of(answer) for answer in answers] == list(range(400))
    requests, inputs = (
        after - first for after, first in zip(counts(server.grpc_url, "brightness"), before, strict=True)
    )
    assert inputs == 400
    assert requests < 400


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"priority": Priority.STAT}, {}),
        ({"queue_timeout_s": 20}, {}),
        ({"timeout_s": 0.99}, {}),
        ({"request_id": "worklist-7"}, {}),
        ({}, {"coalesce": 0}),
    ],
    ids=str,
)
def test_what_goes_straight_has_requests_of_its_own(
    server: EmbeddedServer, given: dict[str, Any], options: dict[str, Any]
) -> None:
    async def use(model: AsyncModel[Any]) -> None:
        await asyncio.gather(*(model.predict(pixels_of(number), **given) for number in range(16)))

    assert used(server.grpc_url, "brightness", use, **options) == (16, 16)


def test_one_turns_calls_are_in_two_requests_and_each_priority_in_its_own(server: EmbeddedServer) -> None:
    async def use(model: AsyncModel[Any]) -> None:
        calls = [
            model.predict(pixels_of(number), priority=priority)
            for number in range(8)
            for priority in (Priority.URGENT, Priority.ROUTINE)
        ]
        assert [number_of(one) for one in await asyncio.gather(*calls)] == [number // 2 for number in range(16)]

    assert used(server.grpc_url, "brightness", use) == (2, 16)


@pytest.mark.parametrize("is_async", [True, False])
def test_what_the_model_fails_on_fails_alone(server: EmbeddedServer, is_async: bool) -> None:  # noqa: FBT001 - a parameter
    texts = ["urgent", "calm", "fail", "urgent", "calm", "calm", "urgent", "calm"] * 2

    async def use(model: AsyncModel[Any]) -> list[Any]:
        return await asyncio.gather(*(model.predict(text) for text in texts), return_exceptions=True)

    async def run() -> list[Any]:
        async with AsyncClient(server.grpc_url) as client:
            return await use(await client.model("triage"))

    if is_async:
        answers = asyncio.run(run())
    else:
        with Client(server.grpc_url) as client:
            given = client.model("triage").predict_many(texts, workers=16)
            answers = [one.error if isinstance(one, Rejection) else one for one in given]
    found = [
        type(one) if isinstance(one, Exception) else "urgent" if one.top.is_positive else "calm" for one in answers
    ]
    assert found == [InferenceFailedError if text == "fail" else text for text in texts]
    assert len({error.request_id for error in answers if isinstance(error, ServerError)}) == 2


def test_what_the_model_dies_of_meets_two_servers_at_most(
    start_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        write_failing(folder)
    urls = tuple(start_server(folder, verify=False, supervise=False).grpc_url for folder in folders)

    async def run() -> list[Any]:
        async with AsyncClient(urls) as client:
            model = await client.model("triage")
            calls = (model.predict(text) for text in ["urgent", "die", *["calm"] * 6])
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(run())
    assert isinstance(answers[1], ServerError)
    deaths = sum(len(path.read_text()) for path in tmp_path.glob("*/triage_step/1/deaths"))
    assert 1 <= deaths <= 2
    assert sum(not isinstance(answer, Exception) for answer in answers) > 0


def _windowed(version: int) -> Contract:
    """Each version has another window: an input prepared by one contract and answered by another is seen."""
    served = image_contract(version)
    assert isinstance(served.input, ImageInput)
    window = FixedWindow(center=40.0 + 100 * (version - 1), width=400)
    return msgspec.structs.replace(served, input=msgspec.structs.replace(served.input, window=window))


def test_versions_published_meanwhile_are_never_mixed(
    start_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    write_classifier(tmp_path, image_contract())
    set_contract(tmp_path, _windowed(1))
    server = start_server(tmp_path, verify=False, supervise=False)
    expected = {
        version: _codec.prepare(_windowed(version), CT).inputs["PIXELS"].mean() / 255 for version in (1, *VERSIONS)
    }
    assert len({round(value, 3) for value in expected.values()}) == len(expected)
    seen: Counter[int] = Counter()

    def publish(version: int) -> None:
        set_contract(tmp_path, _windowed(version))
        with triton.InferenceServerClient(server.grpc_url) as control:
            control.load_model("brightness")

    async def run() -> None:
        stop = asyncio.Event()
        async with AsyncClient(server.grpc_url) as client:
            model = await client.model("brightness")

            async def caller() -> None:
                while not stop.is_set():
                    result = await model.predict(CT)
                    bright = next(one.probability for one in result.findings if one.label == "bright")
                    assert bright == pytest.approx(expected[result.version], abs=1e-6)
                    seen[result.version] += 1

            async def see(version: int) -> None:  # nobody tells it of each answer
                wanted = seen[version] + 20
                while seen[version] < wanted and not any(one.done() for one in callers):  # noqa: ASYNC110 - see above
                    await asyncio.sleep(0.01)

            callers = [asyncio.ensure_future(caller()) for _ in range(16)]
            await see(1)
            for version in VERSIONS:
                await asyncio.to_thread(publish, version)
                await see(version)
            stop.set()
            await asyncio.gather(*callers)

    asyncio.run(run())
    assert set(seen) == set(expected)
    requests, inputs = counts(server.grpc_url, "brightness_step")
    assert requests < inputs
