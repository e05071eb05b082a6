"""Beside NVIDIA's perf_analyzer on the same server: two programs, one truth."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest
from support.perf_analyzer import WINDOWS, Measured, analyze, find_perf_analyzer, write_computing, write_waiting

from radserve.cli import main
from radserve.loadtest import parse_report
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONCURRENCY = 4
WARM_UP_S = 0.4


@pytest.fixture(scope="module")
def program() -> Path:
    found = find_perf_analyzer()
    if found is None:
        pytest.skip("perf_analyzer is missing: deploy/requirements/perf_analyzer .venv-dev")
    return found


@pytest.fixture(scope="module")
def server(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    assert program
    repository = tmp_path_factory.mktemp("repository")
    write_waiting(repository, "waiting")
    write_computing(repository, "computing", 0.03)
    with EmbeddedServer(repository, verify=False, supervise=False) as running:
        yield running


def ours(url: str, model: str, folder: Path, window_s: float) -> Measured:
    written = folder / "ours.json"
    load = ["--scenario", "closed-loop", "--concurrency", f"{CONCURRENCY}", "--warm-up", f"{WARM_UP_S}"]
    length = ["--window", f"{window_s}", "--duration", f"{WINDOWS * window_s}"]
    with pytest.raises(SystemExit) as ended:
        main(["loadtest", model, "--url", url, *load, *length, "--json", str(written)])
    assert not ended.value.code
    figures = parse_report(written.read_bytes()).runs[0].figures
    assert figures is not None
    p50, p90 = (one.latency_s.value for one in figures.percentiles[:2])
    return Measured(figures.inferences_per_s.value, p50, p90)


def ratios(program: Path, url: str, model: str, folder: Path, *, turns: int, window_s: float) -> Measured:
    """Ours to perf_analyzer's: the median of turns that follow each other, as what else runs here slows both."""
    pairs = []
    for turn in range(turns):
        measured: dict[str, Measured] = {}
        for which in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
            measured[which] = (
                ours(url, model, folder, window_s)
                if which == "ours"
                else analyze(program, url, model, folder, concurrency=CONCURRENCY, window_s=window_s)
            )
        pairs.append([mine / its for mine, its in zip(measured["ours"], measured["theirs"], strict=True)])
    return Measured(*(median(column) for column in zip(*pairs, strict=True)))


def test_a_server_that_waits_is_measured_alike(program: Path, server: EmbeddedServer, tmp_path: Path) -> None:
    ratio = ratios(program, server.grpc_url, "waiting", tmp_path, turns=5, window_s=0.4)
    assert ratio.per_s == pytest.approx(1, abs=0.10)
    assert ratio.p50_s == pytest.approx(1, abs=0.15)
    assert ratio.p90_s == pytest.approx(1, abs=0.15)


@pytest.mark.full
def test_a_server_that_computes_is_measured_alike(program: Path, server: EmbeddedServer, tmp_path: Path) -> None:
    ratio = ratios(program, server.grpc_url, "computing", tmp_path, turns=9, window_s=0.6)
    assert ratio.per_s == pytest.approx(1, abs=0.10)
    assert ratio.p50_s == pytest.approx(1, abs=0.15)
