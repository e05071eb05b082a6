"""The command ``radserve cluster``.

Whatever is slow to import is imported inside: the command line loads this
module to show its help.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radserve_server.commands import refuse_without_contracts, treat_sigterm_as_ctrl_c

if TYPE_CHECKING:
    from rich.console import Console

    from radserve_server.cluster import Cluster
    from radserve_server.supervise import Event

_INTERRUPTED = 130
_LOOK_S = 1.0


def cluster(
    repository: Annotated[Path, typer.Argument(help="Folder of the model repository.")] = Path("model_repository"),
    *,
    replicas: Annotated[int, typer.Option(min=1, max=16, help="How many Tritons.")] = 3,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 takes a free one.")] = 8443,
    canary: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Which public model tells whether a replica answers.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON object, once.")] = False,
) -> None:
    """Serve a model repository by several Tritons behind Envoy, on this machine, until Ctrl-C.

    What hospitals run on a cluster, in small: TLS with certificates that are
    made anew at each start, replicas that are watched and started anew, and
    Prometheus where it is installed. SIGHUP starts the replicas anew, one
    after the other, with no request lost where there are two or more. All
    listen on loopback.

    Example: radserve cluster model_repository --replicas 3
    """
    from rich.console import Console  # noqa: PLC0415 - slow

    from radserve_server.cluster import Cluster  # noqa: PLC0415 - slow

    output, messages = (Console(stderr=stderr, soft_wrap=True, highlight=False) for stderr in (False, True))
    ready, asked = False, threading.Event()

    def on_event(who: str, event: Event) -> None:
        messages.print(f"{time.strftime('%H:%M:%S')} {who}: {event.message}", markup=False)

    refuse_without_contracts(repository)
    try:
        treat_sigterm_as_ctrl_c()
        signal.signal(signal.SIGHUP, lambda *_: asked.set())
        running = Cluster(repository, replicas=replicas, port=port, canary=canary, prometheus=True, on_event=on_event)
        started = time.monotonic()
        try:
            with messages.status("starting", spinner="dots"):
                running.start()
            ready = True
            _announce(output, running, time.monotonic() - started, json=json)
            _watch(output, messages, running, asked, live=not json)
        finally:
            running.stop()
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the last lines need no interruption
        messages.print("stopped" if ready else "interrupted before the cluster was ready; nothing is left running")
        raise typer.Exit(0 if ready else _INTERRUPTED) from error
    messages.print("no replica can be started any more")
    raise typer.Exit(1)


def _watch(output: Console, messages: Console, running: Cluster, asked: threading.Event, *, live: bool) -> None:
    """Show the replicas on a terminal, and roll when asked, until all are given up."""
    from rich.live import Live  # noqa: PLC0415 - slow

    from radserve_server.cluster_show import Board  # noqa: PLC0415 - with it

    board, has_terminal = Board(), sys.stdin.isatty()
    # Events are printed above the table where both go to the terminal.
    with Live(console=messages, auto_refresh=False, transient=True) as table:
        shown = live and output.is_terminal and messages.is_terminal
        while not all(server.gave_up for server in running.servers):
            if asked.is_set():
                asked.clear()
                if has_terminal and not sys.stdin.isatty():  # its window was closed
                    raise KeyboardInterrupt
                threading.Thread(target=_roll, args=(messages, running), daemon=True).start()
            if shown:
                table.update(board.table(running.status()), refresh=True)
            time.sleep(_LOOK_S)


def _roll(messages: Console, running: Cluster) -> None:
    from radserve.errors import RadserveError  # noqa: PLC0415 - with the rest

    try:
        running.rolling_restart()
    except RadserveError as error:
        messages.print(f"{time.strftime('%H:%M:%S')} the rolling restart stopped: {error}", markup=False)


def _announce(output: Console, running: Cluster, took_s: float, *, json: bool) -> None:
    import json as jsonlib  # noqa: PLC0415 - with the rest

    from radserve_server.cluster_show import addresses, lines  # noqa: PLC0415 - with it

    if json:
        output.print(jsonlib.dumps(addresses(running)), markup=False)
        return
    for name, value in lines(running):
        output.print(f"{name:<11} {value}", markup=False)
    output.print(
        f"ready after {took_s:.1f} s; Ctrl-C stops it, kill -HUP {os.getpid()} starts the replicas anew one by one"
    )


if __name__ == "__main__":
    typer.run(cluster)
