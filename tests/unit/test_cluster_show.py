from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

from rich.console import Console

from radserve_server.cluster import Replica, State
from radserve_server.cluster_show import Board

if TYPE_CHECKING:
    import pytest
    from rich.table import Table


def _shown(table: Table) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=120).print(table)
    return [" ".join(line.split()) for line in output.getvalue().splitlines()]


def test_the_table_counts_requests_of_each_second_and_starts_anew_with_the_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    board = Board()
    lines = []
    for requests in (1000, 1500, 20, 40):
        now[0] += 2
        replica = Replica(url="a:1", pid=7, state=State.HEALTHY, restarts=0, requests=requests)
        lines.append(_shown(board.table([replica])))
    assert lines[0][0] == "replica address pid state restarts requests/s"
    assert [line[1] for line in lines] == [f"1 a:1 7 healthy {rate}" for rate in (0, 250, 0, 10)]


def test_the_table_says_what_is_wrong() -> None:
    replica = Replica(url="a:1", pid=0, state=State.STARTING, restarts=2, requests=0)
    assert _shown(Board().table([replica]))[1] == "1 a:1 starting 2 0"
