"""Many inputs against a real Triton: order, progress, back-pressure, worker processes, and stopping half-way."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from support.classifiers import image_contract, text_contract, write_classifier
from support.datasets import TEST_FILES
from support.leftovers import children
from support.servers import wait_until

from radserve import AsyncClient, Classification, Client, DecodeError, InputError, OutOfScopeError, Progress, Rejection
from radserve._codec import prepare_step
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from radserve._codec import Prepare, Prepared

CT, MR, CUT = (TEST_FILES / name for name in ("CT_small.dcm", "MR_small.dcm", "MR_truncated.dcm"))
MIXED = [CT, MR, CT, CUT, "/nowhere", CT.read_bytes(), CT]
KINDS = [Classification, OutOfScopeError, Classification, DecodeError, InputError, Classification, Classification]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_classifier(repository, image_contract())
    write_classifier(repository, text_contract())
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


def sync_many(url: str, name: str, sources: Any, **options: Any) -> list[Any]:
    with Client(url) as client:
        return list(client.model(name).predict_many(sources, **options))


def async_many(url: str, name: str, sources: Any, **options: Any) -> list[Any]:
    async def answers() -> list[Any]:
        async with AsyncClient(url) as client:
            model = await client.model(name)
            return [answer async for answer in model.predict_many(sources, **options)]

    return asyncio.run(answers())


both = pytest.mark.parametrize("many", [sync_many, async_many])


@both
@pytest.mark.parametrize("processes", [False, True, None])
@pytest.mark.usefixtures("no_child_left")
def test_answers_keep_the_order_wherever_files_are_read(
    server: EmbeddedServer,
    many: Callable[..., list[Any]],
    processes: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    answers = many(server.grpc_url, "brightness", MIXED, workers=2, processes=processes)
    assert [type(answer.error if isinstance(answer, Rejection) else answer) for answer in answers] == KINDS
    assert [answer.index for answer in answers if isinstance(answer, Rejection)] == [1, 3, 4]
    assert {answer.top.probability for answer in answers if isinstance(answer, Classification)} == {
        answers[0].top.probability
    }
    assert answers[0].provenance.sop_instance_uids == (str(pydicom.dcmread(CT).SOPInstanceUID),)


@both
def test_progress_is_told_with_each_answer(server: EmbeddedServer, many: Callable[..., list[Any]]) -> None:
    told: list[Progress] = []
    many(server.grpc_url, "brightness", [CT, MR, CT], progress=told.append)
    assert told == [Progress(done=number, failed=int(number > 1), total=3) for number in (1, 2, 3)]


@both
@pytest.mark.parametrize("refused", [{"timeout_s": -1}, {"queue_timeout_s": -1}, {"priority": "routine"}])
def test_what_no_input_could_be_given_is_refused_at_once(
    server: EmbeddedServer, many: Callable[..., list[Any]], refused: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=next(iter(refused))):
        many(server.grpc_url, "triage", ["text"], **refused)


class Unsized(pydicom.Dataset):
    """Its pixels cannot be had."""

    def __getattr__(self, name: str) -> Any:
        if name == "PixelData":
            raise OSError("WANG")  # noqa: EM101 - as pydicom does, with a path
        return super().__getattr__(name)


@both
@pytest.mark.parametrize("processes", [False, True])
def test_what_is_no_input_is_refused_where_it_stands(
    server: EmbeddedServer,
    many: Callable[..., list[Any]],
    processes: bool,  # noqa: FBT001 - a parameter
) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with CT.open("rb") as file:
        sources = [CT, "a\0b", None, 7, Unsized(), endless, [CT, file], file, CT]
        answers = many(server.grpc_url, "brightness", sources, processes=processes, workers=2)
    assert [isinstance(answer, Classification) for answer in answers] == [True, *[False] * 7, True]
    assert all(isinstance(answer.error, InputError) for answer in answers[1:-1])
    assert not [answer for answer in answers[1:-1] if "WANG" in str(answer.error)]


@both
@pytest.mark.parametrize("processes", [False, True])
def test_reading_and_waiting_for_it_is_not_the_servers_time(
    server: EmbeddedServer,
    many: Callable[..., list[Any]],
    processes: bool,  # noqa: FBT001 - a parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(step: Prepare) -> Prepared:
        threading.Event().wait(0.4)
        return prepare_step(step)

    monkeypatch.setattr("radserve._workers._preparing.prepare_step", slow)
    monkeypatch.setattr("radserve._workers._pool._Child.ask", lambda _self, step: slow(step))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    answers = many(server.grpc_url, "brightness", [CT] * 6, processes=processes, timeout_s=1.5)
    assert [type(answer) for answer in answers] == [Classification] * 6


@both
def test_inputs_that_end_in_an_error_end_in_it_after_the_answers_before(
    server: EmbeddedServer, many: Callable[..., list[Any]]
) -> None:
    given: list[Progress] = []

    def failing() -> Iterator[str]:
        yield from ["urgent", "calm"]
        raise LookupError

    with pytest.raises(LookupError):
        many(server.grpc_url, "triage", failing(), progress=given.append)
    assert [one.done for one in given] == [1, 2]


def test_large_inputs_are_held_one_at_a_time(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(1)
            yield CT

    monkeypatch.setattr("radserve._codec._window.Window.__init__.__kwdefaults__", {"bytes_": 1})
    with Client(server.grpc_url) as client:
        answers = client.model("brightness").predict_many(endless())
        for number in range(1, 4):
            next(answers)
            assert len(taken) <= number + 1


def test_an_input_that_comes_late_holds_back_no_answer(server: EmbeddedServer) -> None:
    async def run() -> None:
        more = asyncio.Event()

        async def slow() -> AsyncIterator[str]:
            yield "urgent"
            await more.wait()
            yield "calm"

        async with AsyncClient(server.grpc_url) as client:
            answers = (await client.model("triage")).predict_many(slow())
            first = await asyncio.wait_for(anext(answers), 20)
            assert isinstance(first, Classification)
            more.set()
            assert [type(answer) async for answer in answers] == [Classification]

    asyncio.run(run())


def _radserve_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("radserve")}


@pytest.fixture
def held(tmp_path: Path, start_server: Callable[..., EmbeddedServer]) -> Iterator[tuple[EmbeddedServer, Path]]:
    """A server whose model holds requests while there is a file."""
    write_classifier(tmp_path, text_contract())
    step = tmp_path / "triage_step" / "1" / "model.py"
    holding, busy = tmp_path / "hold", tmp_path / "busy"
    waits = f"open({str(busy)!r}, 'w').close()\n        while os.path.exists({str(holding)!r}): time.sleep(0.01)\n"
    begin = "    def execute(self, requests):\n"
    step.write_text("import os, time\n" + step.read_text().replace(begin, f"{begin}        {waits}"))
    server = start_server(tmp_path, verify=False, supervise=False)
    busy.unlink(missing_ok=True)
    holding.touch()
    yield server, busy
    holding.unlink()


def test_answers_dropped_half_way_leave_nothing_running(held: tuple[EmbeddedServer, Path]) -> None:
    server, busy = held
    with Client(server.grpc_url, timeout_s=200) as client:
        before = _radserve_threads()

        def failing() -> Iterator[str]:
            yield "urgent"
            assert wait_until(busy.exists)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            next(client.model("triage").predict_many(failing()))
        assert wait_until(lambda: _radserve_threads() <= before), "threads wait for answers nobody wants"


def test_tasks_dropped_half_way_leave_nothing_running(held: tuple[EmbeddedServer, Path]) -> None:
    server, busy = held

    async def run() -> None:
        async with AsyncClient(server.grpc_url, timeout_s=200) as client:
            answers = (await client.model("triage")).predict_many(f"text {number}" for number in range(100))
            first = asyncio.ensure_future(anext(answers))
            assert await asyncio.to_thread(wait_until, busy.exists)
            first.cancel()
            await asyncio.wait([first])
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_dropped_half_way_worker_processes_end(server: EmbeddedServer) -> None:
    before = children()
    with Client(server.grpc_url) as client:
        answers = client.model("brightness").predict_many([CT] * 100, processes=True, workers=2)
        assert isinstance(next(answers), Classification)
        assert wait_until(lambda: len(children() - before) == 2)
        answers.close()  # type: ignore[attr-defined]
        assert children() <= before
