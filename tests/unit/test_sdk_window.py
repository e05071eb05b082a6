"""How far ahead of the caller many inputs are worked on, and how far a run has come."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from pydicom.dataset import Dataset

from radserve._codec import Counter, Window, check_many, numbered, size_of
from radserve.aio import _many as aio_many
from radserve.errors import InputError
from radserve.results import Progress, Rejection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from radserve.results import Result

REFUSED = Rejection(index=0, error=InputError("no"))


def answering(*, done: bool = False) -> Future[int]:
    future: Future[int] = Future()
    if done:
        future.set_result(0)
    return future


def test_answers_come_in_the_order_of_the_inputs() -> None:
    window: Window[Future[int]] = Window(items=3)
    given = [answering(done=number == 2) for number in range(3)]
    for one in given:
        window.add(one, 0)
    assert [window.pop() for _ in given] == given
    assert not window


@pytest.mark.parametrize(
    ("sizes", "full"), [((0, 0), False), ((0, 0, 0), True), ((99,), False), ((50, 50), True), ((500,), True)]
)
def test_items_and_bytes_are_bounded(sizes: tuple[int, ...], full: bool) -> None:  # noqa: FBT001 - a parameter
    window: Window[Future[int]] = Window(items=3, bytes_=100)
    for size in sizes:
        window.add(answering(), size)
    assert window.is_full == full
    window.pop()
    assert not window.is_full


def test_inputs_are_taken_until_an_answer_is_there_and_one_for_each_that_was_given() -> None:
    window: Window[Future[int]] = Window(items=8)
    assert window.takes_another
    window.add(answering(), 0)
    assert window.takes_another
    window.first.set_result(0)
    assert not window.takes_another
    window.add(answering(done=True), 0)
    window.pop()
    assert window.takes_another, "one was given"
    window.add(answering(), 0)
    assert not window.takes_another


def test_a_full_window_takes_none() -> None:
    window: Window[Future[int]] = Window(items=1)
    window.add(answering(), 0)
    assert not window.takes_another


@pytest.mark.parametrize(("sources", "total"), [([1, 2], 2), (iter([1, 2]), None)])
def test_progress_counts_answers_and_refusals(sources: Any, total: int | None) -> None:
    told: list[Progress] = []
    counter = Counter(told.append, sources)
    counter.count(REFUSED)
    counter.count(cast("Result", object()))
    assert told == [Progress(done=1, failed=1, total=total), Progress(done=2, failed=1, total=total)]


def _dataset() -> Dataset:
    dataset = Dataset()
    dataset.PixelData = b"1234"
    return dataset


@pytest.mark.parametrize(
    ("make", "reads_text", "size"),
    [
        (lambda path: path, False, 5),
        (str, False, 5),
        (lambda path: path.parent, False, 5),
        (lambda path: [path, str(path)], False, 10),
        (lambda _: b"abc", False, 3),
        (lambda _: memoryview(b"abc"), False, 3),
        (lambda _: "ten words?", True, 10),
        (lambda _: np.zeros((2, 2), np.float32), False, 16),
        (lambda _: _dataset(), False, 4),
        (lambda _: "/nowhere", False, 0),
        (lambda _: 7, False, 0),
    ],
)
def test_sizes_are_known_without_reading(
    tmp_path: Path,
    make: Callable[[Path], Any],
    reads_text: bool,  # noqa: FBT001 - a parameter
    size: int,
) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert size_of(make(tmp_path / "file"), reads_text=reads_text) == size


@pytest.mark.parametrize("sources", ["a.dcm", b"DICM", Path("a.dcm"), 7, None])
def test_one_input_is_not_many(sources: Any) -> None:
    with pytest.raises(InputError, match=r"predict\(\)"):
        check_many(sources, 1)


def test_a_folder_is_not_many_either_and_the_message_says_what_is(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").touch()
    with pytest.raises(InputError) as caught:
        check_many(str(tmp_path), 1)
    assert 'predict_many(sorted(Path(folder).glob("*.dcm")))' in str(caught.value)
    check_many(sorted(Path(tmp_path).glob("*.dcm")), 1)


def test_somebody_must_work() -> None:
    with pytest.raises(InputError, match="workers"):
        check_many([], 0)


def test_an_error_of_the_inputs_is_kept_for_the_end() -> None:
    def failing() -> Iterator[str]:
        yield "a"
        raise LookupError

    failures: list[Exception] = []
    inputs = numbered(failing(), failures)
    assert [next(inputs, None) for _ in range(3)] == [(0, "a"), None, None]
    assert [type(error) for error in failures] == [LookupError]


def refilled(kind: type[Any]) -> Iterator[Any]:
    """The numbers from 0 to 3, in one and the same array, as cameras' drivers give frames."""
    one: Any = np.zeros(2, np.uint8) if kind is np.ndarray else bytearray(2)
    for number in range(4):
        one[:] = bytes((number, number)) if kind is bytearray else number
        yield one


@pytest.mark.parametrize("kind", [np.ndarray, bytearray])
def test_an_array_may_be_filled_again_when_it_was_taken(kind: type[Any]) -> None:
    taken = list(numbered(refilled(kind), []))
    assert [(index, bytes(source)) for index, source in taken] == [(n, bytes((n, n))) for n in range(4)]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_array_may_be_filled_again_when_a_task_took_it(is_async: bool) -> None:  # noqa: FBT001 - a parameter
    async def given() -> AsyncIterator[Any]:
        for one in refilled(np.ndarray):
            yield one

    async def take() -> list[tuple[int, Any]]:
        sources: Any = given() if is_async else refilled(np.ndarray)
        return [pair async for pair in aio_many._numbered(sources, [])]

    taken = asyncio.run(take())
    assert [(index, bytes(source)) for index, source in taken] == [(n, bytes((n, n))) for n in range(4)]
