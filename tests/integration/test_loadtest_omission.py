"""Against a server whose answers take known times, in real time: what is told is what it did, a stall included."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.sdk_contracts import contract
from support.stub_triton import StubTriton

from radserve.cli import main
from radserve.loadtest import parse_report
from radserve.loadtest._statistics import rank_of

if TYPE_CHECKING:
    from pathlib import Path

    from radserve.loadtest import Run

pytestmark = pytest.mark.full
SECONDS = 12.0
STALL = (5.0, 7.5)
GOLDEN = (math.sqrt(5) - 1) / 2
PERCENTS = (50.0, 90.0, 95.0, 99.0)


def service_s(number: int) -> float:
    """Median 0.4 s, lognormal."""
    return 0.4 * math.exp(0.3 * NormalDist().inv_cdf((0.5 + number * GOLDEN) % 1))


def measured(url: str, folder: Path, *load: str) -> Run:
    written = folder / "run.json"
    seconds = f"{SECONDS:g}"
    with pytest.raises(SystemExit):
        main(["loadtest", "demo", "--url", url, *load, "--duration", seconds, "--warm-up", "0", "--json", str(written)])
    return parse_report(written.read_bytes()).runs[0]


@pytest.mark.parametrize("stall", [(math.inf, math.inf), STALL])
def test_the_percentiles_of_an_open_loop_are_the_servers(tmp_path: Path, stall: tuple[float, float]) -> None:
    with StubTriton(contract(), service_s, stall=stall) as stub:
        run = measured(stub.url, tmp_path, "--rate", "60", "--workers", "1")
    assert run.figures is not None, run.invalid
    assert run.figures.requests > 500
    answered = sorted(stub.answered[2:], key=lambda one: one[1])[: run.figures.requests]  # two are checks
    true = np.sort([done - came for came, done in answered])
    told = [one.latency_s.value for one in run.figures.percentiles]
    assert told == pytest.approx([true[rank_of(len(true), percent) - 1] for percent in PERCENTS], rel=0.02)
    assert run.figures.most_s == pytest.approx(true[-1], rel=0.02)
    assert (told[-1] > 1.5) is (stall == STALL)


def test_a_closed_loop_omits_the_stall(tmp_path: Path) -> None:
    with StubTriton(contract(), lambda _: 0.02, stall=STALL) as stub:
        run = measured(stub.url, tmp_path, "--percentile", "99")
    assert run.figures is not None
    assert run.figures.percentiles[-1].latency_s.value < 0.2
    assert run.figures.most_s > 2
