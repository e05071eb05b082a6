"""The asynchronous client against a real Triton."""

from __future__ import annotations

import asyncio
import shutil
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.classifiers import image_contract, text_contract, write_classifier
from support.datasets import TEST_FILES
from support.repositories import write_add_one, write_python
from support.servers import free_port, wait_until

from radserve import (
    AsyncClient,
    Classification,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    DecodeError,
    InputError,
    ModelNotFoundError,
    OutOfScopeError,
    Priority,
    Rejection,
    ServerUnavailableError,
)
from radserve.contracts import CONTRACT_PARAMETER, dump_contract
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from radserve import AsyncModel

CT = TEST_FILES / "CT_small.dcm"
# Works until the caller gives it up, or is let go, and leaves a note of which it was.
WAITING_STEP = """
import os
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.folder = args["model_repository"]

    def note(self, name):
        open(os.path.join(self.folder, name), "w").close()

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = request.inputs()[0].as_numpy()
        if x[0, 0]:
            self.note("busy")
            while not os.path.exists(os.path.join(self.folder, "let_go")):
                if request.is_cancelled():
                    self.note("given_up")
                    break
                time.sleep(0.01)
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x + 1)])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_classifier(repository, image_contract())
    write_classifier(repository, text_contract())
    write_add_one(repository)
    _write_waiting(repository)
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


def _write_waiting(repository: Path) -> None:
    """A public model without an ensemble around it: an ensemble of Triton 2.51 keeps a cancellation to itself."""
    served = write_python(repository, "waiting", WAITING_STEP)
    shutil.rmtree(repository / "waiting")
    (repository / "waiting_step").rename(repository / "waiting")
    config = repository / "waiting" / "config.pbtxt"
    escaped = dump_contract(served).replace("\\", "\\\\").replace('"', '\\"')
    told = f'parameters {{ key: "{CONTRACT_PARAMETER}" value: {{ string_value: "{escaped}" }} }}'
    config.write_text(config.read_text().replace("waiting_step", "waiting") + told)


@pytest.fixture
def run(server: EmbeddedServer) -> Callable[[Callable[[AsyncClient], Awaitable[Any]]], Any]:
    """Run what takes a client in an event loop of its own."""

    def run(use: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with AsyncClient(server.grpc_url) as client:
                return await use(client)

        return asyncio.run(main())

    return run


def test_both_clients_answer_the_same(server: EmbeddedServer, run: Callable[..., Any]) -> None:
    async def use(client: AsyncClient) -> tuple[Any, ...]:
        model = await client.model("brightness", Classification)
        result = await model.predict(CT, priority=Priority.STAT, timeout_s=5)
        pixels = (await model.prepare(CT))["PIXELS"]
        raw = await model.infer({"PIXELS": pixels})
        return result.findings, pixels.tolist(), raw["PROBABILITIES"].tolist(), raw.version, repr(model)[6:]

    with Client(server.grpc_url) as client:
        model = client.model("brightness", Classification)
        raw = model.infer(model.prepare(CT))
        expected = (
            model.predict(CT).findings,
            model.prepare(CT)["PIXELS"].tolist(),
            raw["PROBABILITIES"].tolist(),
            raw.version,
            repr(model)[1:],
        )
    assert run(use) == expected


def test_models_health_and_readiness(run: Callable[..., Any]) -> None:
    async def use(client: AsyncClient) -> None:
        await client.wait_until_ready(30)
        assert [model.name for model in await client.models()] == ["add_one", "brightness", "triage", "waiting"]
        assert sorted(await client.health()) == ["add_one", "brightness", "triage", "waiting"]
        with pytest.raises(ModelNotFoundError):
            await client.model("nope")

    run(use)


def test_many_calls_are_in_flight_at_the_same_time(run: Callable[..., Any]) -> None:
    async def use(client: AsyncClient) -> None:
        model = await client.model("add_one")

        async def call(number: int) -> bool:
            given = np.full((1, 4), number, np.float32)
            return bool(((await model.infer({"X": given}))["Y"] == number + 1).all())

        assert all(await asyncio.gather(*(call(number) for number in range(200))))

    run(use)


def test_files_are_read_beside_the_event_loop(run: Callable[..., Any]) -> None:
    threads: list[int] = []

    class Noting:
        """A path that notes where it is read."""

        def __fspath__(self) -> str:
            threads.append(threading.get_ident())
            return str(CT)

    async def use(client: AsyncClient) -> None:
        model = await client.model("brightness")
        await model.predict(Noting())
        assert threads
        await model.prepare(Noting())

    run(use)
    assert threading.get_ident() not in threads


@pytest.fixture
def step_folder(server: EmbeddedServer) -> Iterator[Path]:
    folder = server.repository / "waiting"
    names = ("busy", "given_up", "let_go")
    yield folder
    (folder / "let_go").touch()
    with Client(server.grpc_url) as client:
        client.model("waiting").infer({"X": np.zeros((1, 4), np.float32)}, timeout_s=30)  # the step is free again
    for name in names:
        (folder / name).unlink(missing_ok=True)


HELD = {"X": np.ones((1, 4), np.float32)}


async def _until(holds: Callable[[], bool]) -> bool:
    return await asyncio.to_thread(wait_until, holds)


def test_a_cancelled_task_cancels_the_call_at_the_server(run: Callable[..., Any], step_folder: Path) -> None:
    async def use(client: AsyncClient) -> None:
        model = await client.model("waiting")
        task = asyncio.create_task(model.infer(HELD, timeout_s=60))
        assert await _until((step_folder / "busy").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _until((step_folder / "given_up").exists)
        (step_folder / "let_go").touch()
        assert list(await client.health("waiting")) == ["waiting"]

    run(use)


def test_closing_ends_the_calls_in_flight(run: Callable[..., Any], step_folder: Path) -> None:
    async def use(client: AsyncClient) -> None:
        model = await client.model("waiting")
        task = asyncio.create_task(model.infer(HELD, timeout_s=60))
        assert await _until((step_folder / "busy").exists)
        await client.close()
        with pytest.raises(ClientClosedError):
            await task
        assert await _until((step_folder / "given_up").exists)

    run(use)


def test_closing_the_synchronous_client_cancels_at_the_server_too(server: EmbeddedServer, step_folder: Path) -> None:
    client = Client(server.grpc_url)
    model, ended = client.model("waiting"), threading.Event()

    def call() -> None:
        with pytest.raises(ClientClosedError):
            model.infer(HELD, timeout_s=60)
        ended.set()

    thread = threading.Thread(target=call)
    thread.start()
    assert wait_until((step_folder / "busy").exists)
    client.close()
    thread.join(30)
    assert ended.is_set()
    assert wait_until((step_folder / "given_up").exists)


def test_the_deadline_holds(run: Callable[..., Any], step_folder: Path) -> None:  # noqa: ARG001 - lets the step go
    async def use(client: AsyncClient) -> None:
        model = await client.model("waiting")
        with pytest.raises(DeadlineExceededError):
            await model.infer(HELD, timeout_s=0.3)

    run(use)


def test_many_inputs_are_answered_in_order_and_a_bad_one_stops_none(run: Callable[..., Any]) -> None:
    async def use(client: AsyncClient) -> list[type]:
        model = await client.model("brightness")
        sources: list[Any] = [CT, TEST_FILES / "MR_small.dcm", TEST_FILES / "MR_truncated.dcm", "/nowhere", CT]
        answers = [answer async for answer in model.predict_many(sources, workers=2)]
        return [type(answer.error) if isinstance(answer, Rejection) else type(answer) for answer in answers]

    assert run(use) == [Classification, OutOfScopeError, DecodeError, InputError, Classification]


def test_inputs_may_come_asynchronously(run: Callable[..., Any]) -> None:
    async def reports() -> AsyncIterator[str]:
        for text in ("urgent", "nothing"):
            await asyncio.sleep(0)
            yield text

    async def use(client: AsyncClient) -> list[bool]:
        model: AsyncModel[Classification] = await client.model("triage", Classification)
        found = []
        async for answer in model.predict_many(reports()):
            assert not isinstance(answer, Rejection)
            found.append(answer.top.is_positive)
        return found

    assert run(use) == [True, False]


def test_a_closed_client_says_so(run: Callable[..., Any]) -> None:
    async def use(client: AsyncClient) -> None:
        model = await client.model("triage")
        await client.close()
        for call in (
            model.predict("x"),
            client.models(),
            client.health(),
            client.model("triage"),
            client.wait_until_ready(1),
        ):
            with pytest.raises(ClientClosedError):
                await call
        with pytest.raises(ClientClosedError):
            model.predict_many([])
        assert "(closed)" in repr(client)

    run(use)


def test_a_client_may_be_made_before_its_event_loop_runs(server: EmbeddedServer) -> None:
    client = AsyncClient(server.grpc_url)

    async def use() -> float:
        async with client:
            return (await client.health("add_one"))["add_one"]

    assert asyncio.run(use()) > 0


def test_no_server_is_an_unavailable_one() -> None:
    async def use() -> None:
        async with AsyncClient(f"127.0.0.1:{free_port()}") as client:
            with pytest.raises(ServerUnavailableError, match="127"):
                await client.model("triage")
            with pytest.raises(DeadlineExceededError, match="no server answers"):
                await client.wait_until_ready(0.5)

    asyncio.run(use())
