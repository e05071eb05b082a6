"""Several loads on a real Triton in one command, and the files that are written of them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.classifiers import image_contract, write_classifier
from support.commands import RADSERVE
from support.leftovers import children
from support.servers import wait_until

from radserve.cli import main
from radserve.loadtest import Ending, Report, Scenario, parse_report
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = ("--window", "0.2", "--longest", "0.6", "--warm-up", "0.1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    folder = tmp_path_factory.mktemp("repository")
    write_classifier(folder, image_contract())
    with EmbeddedServer(folder, verify=False, supervise=False) as running:
        yield running


def read(path: Path) -> Report:
    return parse_report(path.read_bytes())


def loadtest(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["loadtest", *arguments])
    return int(ended.value.code or 0)


def test_a_sweep_measures_each_concurrency_and_writes_all_its_files(
    server: EmbeddedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {form: str(tmp_path / f"load.{form}") for form in ("json", "csv", "html")}
    files = [part for form, name in names.items() for part in (f"--{form}", name)]
    loadtest("brightness", "--url", server.grpc_url, "--sweep", "1,4", *SHORT, *files)
    report = read(Path(names["json"]))
    assert [run.plan.concurrency for run in report.runs] == [1, 4]
    assert all(run.totals.requests for run in report.runs)
    with Path(names["csv"]).open(encoding="utf-8") as lines:
        assert [line["concurrency"] for line in csv.DictReader(lines)] == ["1", "4"]
    with (tmp_path / "load.windows.csv").open(encoding="utf-8") as lines:
        assert {line["run"] for line in csv.DictReader(lines)} == {"1", "2"}
    assert "Load test of brightness" in Path(names["html"]).read_text(encoding="utf-8")
    out = capsys.readouterr().out
    assert all(f"{load} in flight" in out for load in (1, 4))


@pytest.mark.full
def test_the_highest_rate_is_searched_for(
    server: EmbeddedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "load.json"
    goal = ("--find-max-rate", "--slo", "p90=1s", "--rate", "20")
    status = loadtest("brightness", "--url", server.grpc_url, *goal, *SHORT, "--json", str(written))
    report = read(written)
    assert {run.plan.scenario for run in report.runs} == {Scenario.SERVER}
    assert {run.plan.percentile for run in report.runs} == {90.0}
    assert [run.plan.rate for run in report.runs][:2] in ([20, 40], [20, 10])
    assert report.search is not None
    assert (report.search.percent, report.search.latency_s) == (90.0, 1.0)
    assert status == (0 if report.search.rate else 1)
    assert report.search.rate in (None, *(run.plan.rate for run in report.runs))
    assert report.search.limit in " ".join(capsys.readouterr().out.split())


def test_interrupting_a_sweep_keeps_what_was_measured(server: EmbeddedServer, tmp_path: Path) -> None:
    written = tmp_path / "load.json"
    started = subprocess.Popen(  # noqa: S603 - this Python
        [
            *RADSERVE,
            *("loadtest", "brightness", "--url", server.grpc_url, "--sweep", "1,2,4,8,16", "--json", str(written)),
            *("--window", "0.2", "--duration", "3", "--warm-up", "0", "--html", str(tmp_path / "load.html")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with started as process:
        try:
            assert wait_until(lambda: bool(children(process.pid)))
            os.kill(process.pid, signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    report = read(written)
    assert report.runs[-1].ending is Ending.INTERRUPTED
    assert len(report.runs) < 5
    assert (tmp_path / "load.html").exists()
