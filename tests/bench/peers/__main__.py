"""radserve's server beside other Python model servers, on the same machine, the same graphs and the same options.

``make bench-peers`` writes the section "Peers" of tests/bench/results.md. The
first start installs each peer into an environment of its own, .venv-peers/NAME.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers import catalogue, graphs
from bench.peers.stage import Findings, Stage, say
from bench.peers.tables import report
from bench.report import be_as_nice_as_usual

if TYPE_CHECKING:
    from collections.abc import Iterable

# Idle, these take no processor time: they run at the same time, and take turns. The others are alone.
_TOGETHER = ("asgi", "fastapi", catalogue.OURS, catalogue.WITHOUT_QUEUE)


def _groups(only: Iterable[str]) -> list[list[str]]:
    chosen = [name for name in (*_TOGETHER, *catalogue.PEERS) if name in only]
    together = [name for name in _TOGETHER if name in chosen]
    return [group for group in (together, *[[name] for name in chosen if name not in _TOGETHER]) if group]


def main() -> None:
    """Run it."""
    be_as_nice_as_usual()
    names = [catalogue.OURS, catalogue.WITHOUT_QUEUE, *catalogue.PEERS]
    parser = argparse.ArgumentParser(prog="bench.peers", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=names, help="measure, and report, this alone; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each cell")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped then, too
    found = Findings()
    with tempfile.TemporaryDirectory(prefix="radserve_peers_") as scratch:
        folder = Path(scratch)
        say("exporting DenseNet121")
        tiny, large = graphs.chest_xray(folder), graphs.densenet(folder)
        for group in _groups(options.only or names):
            say(f"{', '.join(group)}")
            for graph, rows, in_flight in ((tiny, 1, (8, 32)), (tiny, 16, (8, 32)), (large, 1, (4,))):
                stage = Stage(
                    graph=graph,
                    rows=rows,
                    in_flight=in_flight,
                    rounds=options.rounds,
                    seconds=options.seconds,
                    folder=folder,
                )
                stage.measure(group, found)
    report(found, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
