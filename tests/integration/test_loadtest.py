"""Load tests of a real Triton: what they count, and what ends them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.classifiers import image_contract, write_classifier
from support.commands import RADSERVE
from support.datasets import TEST_FILES
from support.leftovers import children
from support.servers import wait_until

from radserve import Client
from radserve.cli import main
from radserve.errors import RadserveError
from radserve.loadtest import Ending, Plan, Report, Run, Scenario, measure, parse_report, synthetic
from radserve.loadtest._server import Server, steps_between
from radserve.options import ClientOptions
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from radserve._codec import Statistics

    Test = Callable[..., "Done"]

SHORT = ("--window", "0.2", "--longest", "0.8", "--warm-up", "0.1")
LONG = ("--window", "0.2", "--duration", "600", "--warm-up", "0")
SECRET = "s3cret-t0ken"  # noqa: S105 - a test's


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    write_classifier(folder, image_contract())
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


class Done(NamedTuple):
    status: int
    out: str
    err: str
    report: Report | None

    @property
    def run(self) -> Run:
        assert self.report is not None
        return self.report.runs[0]


@pytest.fixture
def loadtest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Test:
    """A function that runs the command in this process."""

    def test(*arguments: str) -> Done:
        written = tmp_path / "run.json"
        with pytest.raises(SystemExit) as ended:
            main(["loadtest", *arguments, "--json", str(written)])
        told = capsys.readouterr()
        report = parse_report(written.read_bytes()) if written.exists() else None
        return Done(int(ended.value.code or 0), told.out, told.err, report)

    return test


def statistics(url: str) -> tuple[Statistics, ...]:
    async def read() -> tuple[Statistics, ...]:
        options = ClientOptions(endpoints=(url,))
        with Client(options=options) as client:
            server = Server(client.model("brightness").contract, options)
        try:
            told = await server.read()
        finally:
            await server.close()
        assert told, server.note
        return told

    return asyncio.run(read())


def test_all_that_was_counted_the_server_counted_too(server: EmbeddedServer, loadtest: Test) -> None:
    before = statistics(server.grpc_url)
    done = loadtest("brightness", "--url", server.grpc_url, "--concurrency", "4", "--workers", "2", *SHORT)
    steps = steps_between(before, statistics(server.grpc_url))
    totals, checks = done.run.totals, 3  # whether the model answers: the command first, then each worker
    assert totals.sent == totals.requests > 20
    assert totals.failed == 0
    assert [step.requests for step in steps] == [totals.requests + checks] * 2
    assert [step.inferences for step in steps] == [totals.requests + checks] * 2


def test_the_report_says_where_the_time_goes(server: EmbeddedServer, loadtest: Test) -> None:
    done = loadtest("brightness", "--url", server.grpc_url, "--scenario", "multi-stream", *SHORT)
    ensemble, step = done.run.steps
    assert (ensemble.is_ensemble, step.is_ensemble) == (True, False)
    assert step.inferences == done.run.plan.inputs_per_request * step.requests > 0
    assert step.total_s <= ensemble.total_s
    assert 0 < step.compute_infer_s <= step.total_s
    assert sum(one.count for one in step.batch_sizes) == step.executions > 0
    assert {one.size for one in step.batch_sizes} == {done.run.plan.inputs_per_request}
    assert done.run.invalid or all(
        word in done.out for word in ("inferences/s", "brightness_step 1", "p99 (ms)", "Of the mean latency of ")
    )


def test_an_open_loop_sends_what_is_due(server: EmbeddedServer, loadtest: Test) -> None:
    done = loadtest("brightness", "--url", server.grpc_url, "--rate", "100", "--duration", "1.5", "--warm-up", "0")
    run = done.run
    assert run.plan.percentile == 99
    assert sum(window.due for window in run.windows) == pytest.approx(150, abs=50)
    assert 0 <= run.totals.due - run.totals.sent <= 1  # what falls due as the run ends may not leave any more
    assert run.totals.sent == run.totals.requests
    assert run.ending is Ending.DURATION
    assert run.client.lag_p99_s is not None
    if run.figures is not None:  # else this machine had better things to do
        assert run.figures.offered_per_s == pytest.approx(100, abs=33)
        assert run.is_reached


def test_a_rate_beyond_the_server_is_told(server: EmbeddedServer, loadtest: Test) -> None:
    done = loadtest("brightness", "--url", server.grpc_url, "--rate", "50000", *SHORT)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "the run is invalid" in done.err or "the rate was not reached" in done.err
    assert done.run.windows[-1].waiting > 1024
    assert (done.run.figures is None) is bool(done.run.invalid)


def test_real_files_are_sent_and_what_cannot_be_is_told(server: EmbeddedServer, loadtest: Test, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm", "MR_truncated.dcm"):
        shutil.copy(TEST_FILES / name, study)
    done = loadtest("brightness", str(study), "--url", server.grpc_url, "--scenario", "single-stream", *SHORT)
    assert done.report is not None
    sent = done.report.inputs
    assert (sent.is_synthetic, sent.files, sent.count) == (False, 3, 1)
    assert {one.type: one.count for one in sent.refused} == {"OutOfScopeError": 1, "DecodeError": 1}
    assert "refused: 1 x OutOfScopeError, for example" in done.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nobody",), "the server does not serve nobody"),
        (("brightness", "{empty}"), "no input can be sent: {empty}: the folder holds no file"),
        (("brightness", "--batch", "999"), "takes at most"),
        (("brightness", "--rate", "-1"), "the rate must be"),
        (("brightness", "--json", "{empty}/no/run.json"), "there is no folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    server: EmbeddedServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    reason: str,
) -> None:
    empty = str(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["loadtest", *(one.format(empty=empty) for one in arguments), "--url", server.grpc_url])
    told = capsys.readouterr()
    assert ended.value.code == 1
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert reason.format(empty=empty) in told.err


def test_a_server_that_is_not_there_is_one_line(loadtest: Test) -> None:
    done = loadtest("brightness", "--url", "127.0.0.1:1")
    assert (done.status, done.report, done.err.count("\n")) == (1, None, 1)
    assert "no server answers gRPC at 127.0.0.1:1" in done.err


def test_a_server_without_statistics_is_measured_all_the_same(repository: Path, loadtest: Test) -> None:
    restricted = ("--grpc-restricted-protocol=statistics:admin=x",)
    with EmbeddedServer(repository, verify=False, supervise=False, extra_args=restricted) as silent:
        done = loadtest("brightness", "--url", silent.grpc_url, *SHORT)
    assert done.run.totals.requests > 10
    assert done.run.steps == ()
    assert any("no breakdown by the server: the server restricts this call" in note for note in done.run.notes)


def test_a_server_that_is_gone_before_the_load_is_told_as_what_it_is() -> None:
    described = image_contract()
    plan = Plan.of(Scenario.SINGLE_STREAM, described)

    async def load() -> Run:
        options = ClientOptions(endpoints=("127.0.0.1:1",))
        return await measure(plan, described, options, synthetic(described, 0), stop=asyncio.Event())

    with pytest.raises(RadserveError, match=r"^a worker process cannot begin: no server answers gRPC at 127.0.0.1:1"):
        asyncio.run(load())


class Running:
    """The command in a process of its own, while it sends."""

    def __init__(self, url: str, folder: Path, *arguments: str, **environment: str) -> None:
        self._written = folder / "run.json"
        command = [*RADSERVE, "loadtest", "brightness", "--url", url, "--json", str(self._written), *LONG, *arguments]
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def workers(self) -> set[int]:
        return children(self.process.pid)

    def done(self) -> Done:
        out, err = self.process.communicate(timeout=60)
        report = parse_report(self._written.read_bytes()) if self._written.exists() else None
        return Done(self.process.returncode, out, err, report)


def sending(server: EmbeddedServer, folder: Path, *arguments: str, **environment: str) -> Running:
    before = statistics(server.grpc_url)[0].requests
    running = Running(server.grpc_url, folder, *arguments, **environment)
    assert wait_until(lambda: statistics(server.grpc_url)[0].requests > before + 200)
    return running


def alive(processes: set[int]) -> list[int]:
    return [one for one in processes if Path(f"/proc/{one}").exists()]


def test_ctrl_c_prints_what_was_measured(server: EmbeddedServer, tmp_path: Path) -> None:
    running = sending(server, tmp_path, "--concurrency", "2", "--workers", "2")
    workers = running.workers()
    running.process.send_signal(signal.SIGINT)
    done = running.done()
    assert (done.status, done.err) == (130, "")
    assert "PARTIAL (interrupted)" in done.out
    assert "interrupted: this is what was measured until then" in done.out
    assert done.run.ending is Ending.INTERRUPTED
    assert done.run.totals.requests > 200
    assert done.run.figures or done.run.invalid
    assert len(workers) == 2
    assert not alive(workers)


def test_a_server_that_dies_leaves_what_was_measured(repository: Path, tmp_path: Path) -> None:
    with EmbeddedServer(repository, verify=False, supervise=False) as mortal:
        running = sending(mortal, tmp_path, "--concurrency", "4")
        os.kill(mortal.pid, signal.SIGKILL)
        done = running.done()
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "the server stopped answering" in done.err
    assert "what was measured until then is shown above" in done.err or done.run.invalid
    assert done.run.ending is Ending.SERVER_LOST
    assert done.run.totals.requests > 200
    assert {one.type for one in done.run.errors} == {"ServerUnavailableError"}
    assert done.run.figures or done.run.invalid


def test_a_worker_that_dies_ends_the_run_and_leaves_what_was_measured(server: EmbeddedServer, tmp_path: Path) -> None:
    running = sending(server, tmp_path, "--concurrency", "2", "--workers", "2")
    os.kill(min(running.workers()), signal.SIGKILL)
    done = running.done()
    assert done.status == 1
    assert done.err.startswith("radserve: a worker process died")
    assert done.run.ending is Ending.WORKER_LOST


def test_workers_end_with_their_parent_and_know_secrets_by_the_pipe_alone(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    running = sending(server, tmp_path, "--concurrency", "2", "--workers", "2", RADSERVE_TOKEN=SECRET)
    workers = running.workers()
    assert len(workers) == 2
    for worker in workers:
        for told in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{worker}/{told}").read_bytes()
    running.process.kill()
    running.process.communicate()
    assert wait_until(lambda: not alive(workers))


def test_answers_that_are_wrong_are_told_before_anything_is_measured(tmp_path: Path, loadtest: Test) -> None:
    repository = tmp_path / "repository"
    write_classifier(repository, image_contract())
    step = repository / "brightness_step" / "1" / "model.py"
    step.write_text(step.read_text().replace("/ 255", "/ (np.nan if given.any() else 255)"))
    with EmbeddedServer(repository, verify=False, supervise=False) as broken:
        done = loadtest("brightness", "--url", broken.grpc_url, *SHORT)
    assert (done.status, done.report) == (1, None)
    assert "cannot be trusted" in done.err
