"""Worker processes: what they prepare, what kills them, and what they leave behind."""

from __future__ import annotations

import io
import os
import pickle
import re
import signal
import subprocess
import sys
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pydicom
import pytest
from support.datasets import TEST_FILES
from support.leftovers import children
from support.sdk_contracts import IMAGE, WAVEFORM, contract
from support.servers import wait_until

from radserve import errors
from radserve._codec import Prepare, prepare_step
from radserve._codec._prepared import Prepared
from radserve._workers import StartError, Workers, _pool
from radserve._workers._messages import AnswerError, receive_answer, send_answer
from radserve.contracts import PercentileWindow
from radserve.errors import DecodeError, InputError, MissingAttributeError, MissingExtraError, OutOfScopeError
from radserve.preprocess import Placement
from radserve.preprocess._geometry import Span
from radserve.sources import Geometry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("no_child_left")

CT, MR, ECG = (TEST_FILES / name for name in ("CT_small.dcm", "MR_small.dcm", "waveform_ecg.dcm"))


def step(source: Any = CT, described: Any = IMAGE, **more: Any) -> Prepare:
    return Prepare(contract=contract(described), source=source, **more)


def large() -> bytes:
    """A slice of 16 million pixels."""
    dataset = pydicom.dcmread(CT)
    dataset.Rows = dataset.Columns = 4096
    dataset.PixelData = np.arange(4096 * 4096, dtype=np.int16).tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


@pytest.fixture
def start() -> Iterator[Callable[..., Workers]]:
    running: list[Workers] = []

    def make(count: int = 1, **limits: Any) -> Workers:
        running.append(Workers(count, **limits))
        return running[-1]

    yield make
    for workers in running:
        workers.close()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """For tests that do no harm to it."""
    running = Workers(1)
    running.submit(step()).result()
    yield running
    running.close()


@pytest.mark.parametrize(
    "asked", [step(), step(str(CT)), step(CT.read_bytes()), step(ECG, WAVEFORM)], ids=["path", "name", "bytes", "ecg"]
)
def test_a_worker_prepares_the_same(workers: Workers, asked: Prepare) -> None:
    expected, prepared = prepare_step(asked), workers.submit(asked).result()
    assert prepared.sop_instance_uids == expected.sop_instance_uids
    for name, array in expected.inputs.items():
        np.testing.assert_array_equal(prepared.inputs[name], array)
        assert prepared.inputs[name].dtype == array.dtype


def test_a_path_is_the_callers_wherever_the_worker_is(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TEST_FILES)
    assert workers.submit(step(CT.name)).result()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (step(MR), OutOfScopeError),
        (step(TEST_FILES / "MR_truncated.dcm"), DecodeError),
        (step("/nowhere"), InputError),
        (step(frame=3), InputError),
    ],
)
def test_a_refusal_is_the_same_from_a_worker(workers: Workers, asked: Prepare, error: type[Exception]) -> None:
    with pytest.raises(error) as here:
        prepare_step(asked)
    with pytest.raises(error, match=re.escape(str(here.value))) as there:
        workers.submit(asked).result()
    assert type(there.value) is type(here.value)


def _only_child(before: set[int]) -> int:
    (pid,) = children() - before
    return pid


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGSEGV, "crashed"), (signal.SIGKILL, "runs out of memory"), (signal.SIGTERM, "killed")],
)
def test_a_crash_is_the_inputs_and_the_next_has_a_new_worker(
    start: Callable[..., Workers], number: signal.Signals, told: str
) -> None:
    before = children()
    workers = start()
    workers.submit(step()).result()
    pid = _only_child(before)
    os.kill(pid, signal.SIGSTOP)
    asked = workers.submit(step())
    assert wait_until(asked.running)
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(DecodeError, match=told) as refusal:
        asked.result(20)
    assert refusal.value.is_final == (number == signal.SIGSEGV)
    assert workers.submit(step()).result()
    assert _only_child(before) != pid


def test_who_died_with_nothing_to_do_harms_no_input(start: Callable[..., Workers]) -> None:
    before = children()
    workers = start()
    workers.submit(step()).result()
    pid = _only_child(before)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: "Z" in Path(f"/proc/{pid}/stat").read_text().split())
    assert workers.submit(step()).result()


def test_an_input_that_takes_too_long_is_refused(start: Callable[..., Workers]) -> None:
    workers = start(limit_s=0.005)
    with pytest.raises(DecodeError, match=r"more than 0\.005 s"):
        workers.submit(step(large())).result()


@pytest.mark.parametrize("room_mib", [16, 48, 128])  # to take the input; to read it; to prepare it
def test_an_input_that_takes_too_much_memory_is_refused_by_the_limits_name(
    start: Callable[..., Workers], room_mib: int
) -> None:
    before = children()
    probe = start()
    probe.submit(step()).result()
    pages = int(Path(f"/proc/{_only_child(before)}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (room_mib << 20)
    workers = start(memory_limit_bytes=limit)
    assert workers.submit(step()).result()
    percentiles = msgspec.structs.replace(IMAGE, window=PercentileWindow(lower=1, upper=99))  # need all values at once
    with pytest.raises(DecodeError, match=f"more than {limit >> 20} MiB of memory"):
        workers.submit(step(large(), percentiles)).result()


def test_a_worker_knows_no_secrets_and_leaves_no_core(
    start: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADSERVE_TOKEN", "7fe3")
    monkeypatch.setenv("PACS_PASSWORD", "7fe3")
    before = children()
    start().submit(step()).result()
    about = Path(f"/proc/{_only_child(before)}")
    assert b"7fe3" not in (about / "environ").read_bytes()
    assert re.search(r"Max core file size +0 +0", (about / "limits").read_text())


def test_a_namesake_in_the_current_folder_is_not_imported(
    start: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert start().submit(step()).result()


def test_closing_ends_what_runs_and_what_waits(start: Callable[..., Workers]) -> None:
    before = children()
    workers = start()
    workers.submit(step()).result()
    os.kill(_only_child(before), signal.SIGSTOP)
    running, waiting = workers.submit(step()), workers.submit(step())
    assert wait_until(running.running)
    workers.close()
    assert children() == before
    with pytest.raises(DecodeError):
        running.result(0)
    with pytest.raises(CancelledError):
        waiting.result(0)


_PARENT = """
import sys
sys.path[:] = {path!r}
from test_sdk_workers import Workers, children, step
workers = Workers(1)
workers.submit(step()).result()
print(*children(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_ends_with_its_parent(stopped: bool) -> None:  # noqa: FBT001 - a parameter
    code = _PARENT.format(path=[*sys.path, str(Path(__file__).parent)])
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as parent:  # noqa: S603 - ourselves
        assert parent.stdout
        worker = Path("/proc", parent.stdout.readline().decode().strip())
        assert worker.exists()
        if stopped:
            os.kill(int(worker.name), signal.SIGSTOP)
        parent.kill()
    assert wait_until(lambda: not worker.exists() or "Z" in (worker / "stat").read_text().split())


def test_where_no_process_can_be_started_that_is_said(
    start: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: "/nowhere/python")
    with pytest.raises(StartError, match="No such file"):
        start().submit(step()).result()
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: "/bin/false")
    with pytest.raises(StartError, match="status 1"):
        start().submit(step()).result()


def answered(*answers: Any) -> io.BytesIO:
    stream = io.BytesIO()
    for answer in answers:
        send_answer(stream, answer)
    stream.seek(0)
    return stream


def test_what_was_prepared_arrives_as_it_was() -> None:
    inputs = {
        "IMAGE": np.arange(12, dtype="<u2").reshape(1, 3, 4)[:, ::-1],
        "NONE": np.zeros((0, 2), "<f4"),
        "FLAG": np.array([[True]]),
    }
    span = Span(source=4, start=0, used=4, wire=4, offset=0, length=4)
    geometry = Geometry(
        position_mm=(1.0, 2.0, 3.0),
        row_cosines=(1.0, 0.0, 0.0),
        column_cosines=(0.0, 1.0, 0.0),
        pixel_spacing_mm=(0.5, cast("float", np.float64(0.5))),
    )
    placement = Placement(rows=span, columns=span)
    sent = Prepared(
        inputs=inputs, sop_instance_uids=("1.2",), placement=placement, geometry=geometry, images=(("1.2", None),)
    )
    stream = answered(sent, None)
    got = receive_answer(stream, 2**20)
    assert isinstance(got, Prepared)
    for name, array in inputs.items():
        np.testing.assert_array_equal(got.inputs[name], array)
        assert got.inputs[name].dtype == array.dtype
    assert msgspec.structs.replace(got, inputs={}) == msgspec.structs.replace(sent, inputs={})
    assert receive_answer(stream, 0) is None, "the next answer begins where this one ends"


def _said(header: object, rest: bytes = b"") -> bytes:
    packed = msgspec.msgpack.encode(header)
    return len(packed).to_bytes(8, "little") + packed + rest


def _claimed(dtype: str, shape: list[int], rest: bytes = b"") -> bytes:
    return _said({"prepared": {"inputs": {"IMAGE": {"dtype": dtype, "shape": shape}}}}, rest)


@pytest.mark.parametrize(
    "answer",
    [
        (2**63).to_bytes(8, "little"),
        (9).to_bytes(8, "little") + b"\xffgarbage.",
        _said([1]),
        _said({"prepared": {"inputs": {"IMAGE": 1}}}),
        _claimed("|O", [1], b"A" * 8),
        _claimed("<U9", [1], b"A" * 36),
        _claimed("(1000,1000)f8", [1]),
        _claimed("|u1", [2**62]),
        _claimed("|u1", [2**40, 0, 2**40, 2**40]),
        _claimed("|u1", [-1, -1]),
        _said({"refusal": {"kind": "SystemExit", "said": [], "attributes": {}}}),
        _said({"refusal": {"kind": "DecodeError", "said": [1], "attributes": {}}}),
        _said({"refusal": {"kind": "DecodeError", "said": [], "attributes": {"x": [[]]}}}),
        len(pickle.dumps(os.system)).to_bytes(8, "little") + pickle.dumps(os.system),
    ],
)
def test_a_worker_that_was_taken_over_cannot_take_over_its_parent(answer: bytes) -> None:
    with pytest.raises(AnswerError):
        receive_answer(io.BytesIO(answer), 2**20)


def test_half_an_answer_is_the_end_of_the_worker() -> None:
    with pytest.raises(EOFError):
        receive_answer(io.BytesIO(_claimed("|u1", [8], b"1234")), 2**20)


def test_a_worker_that_was_stopped_is_ended_at_its_limit(
    start: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pool, "_WATCHED_S", 0.05)
    before = children()
    workers = start()
    workers.submit(step()).result()
    (child,) = workers._children
    child._limit_s = 0.2
    os.kill(_only_child(before), signal.SIGSTOP)
    with pytest.raises(DecodeError, match=r"more than 0\.2 s"):
        workers.submit(step()).result(20)
    assert workers.submit(step()).result(20)


def test_what_cannot_leave_this_process_is_refused(workers: Workers) -> None:
    with CT.open("rb") as file, pytest.raises(InputError, match="handed"):
        workers.submit(step([file])).result(20)
    assert workers.submit(step()).result(20)


@pytest.mark.parametrize(
    "error",
    [
        MissingAttributeError("Rows", "an image has it"),
        MissingExtraError("codecs", "JPEG"),
        errors.DeadlineExceededError(
            "late", model="m", version=3, code="X", endpoint="a:1", retry=errors.Retry.ELSEWHERE
        ),
        errors.ParityError("differs", {"Y": 1}),
        DecodeError("cut"),
        DecodeError("no memory", is_final=False),
    ],
)
def test_errors_reach_other_processes_whole(error: errors.RadserveError) -> None:
    copies = [pickle.loads(pickle.dumps(error))]  # noqa: S301 - our own
    if not isinstance(error, errors.ServerError | errors.ExportError):  # of no input, so of no worker
        copies.append(receive_answer(answered(error), 0))
    for copy in copies:
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
