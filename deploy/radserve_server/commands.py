"""The commands ``radserve serve`` and ``radserve doctor``.

Whatever is slow to import is imported inside: the command line loads this
module to show its help.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radserve.cli._options import (
    Config,
    Insecure,
    Json,
    Timeout,
    TlsCa,
    TlsCert,
    TlsKey,
    Url,
    documented,
    names_server,
    options_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from radserve_server.embedded import EmbeddedServer
    from radserve_server.supervise import Event

_INTERRUPTED = 130
_ADVICE = "The embedded server is for development and evaluation on this machine; production runs NVIDIA's container."
_LOADED = "successfully loaded '"
_MARKS = {
    "ok": "[green]ok[/]     ",
    "absent": "[yellow]absent[/] ",
    "warning": "[yellow]warning[/]",
    "broken": "[red]broken[/] ",
}


def serve(
    *,
    repository: Annotated[Path, typer.Option(help="Folder of the model repository.")] = Path("model_repository"),
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of gRPC; 0 takes a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of HTTP; 0 takes a free one.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of metrics; 0 takes a free one.")] = 8002,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    tritonserver: Annotated[Path | None, typer.Option(help="The tritonserver to run; default: search for one.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Threads of each instance of each network; default: its share of the cores."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--i-understand-this-is-not-for-production",
            help="Allow a host that is not loopback: whoever reaches it may read, load and replace models.",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the server's log.")] = False,
) -> None:
    """Serve a model repository on this machine until Ctrl-C.

    Example: radserve serve --repository model_repository --grpc-port 8001
    """
    from rich.console import Console  # noqa: PLC0415 - slow

    from radserve_server.embedded import EmbeddedServer  # noqa: PLC0415 - slow

    output, messages = (Console(stderr=stderr, soft_wrap=True, highlight=False) for stderr in (False, True))
    ready = False

    def on_event(event: Event) -> None:
        messages.print(f"{time.strftime('%H:%M:%S')} {event.message}", markup=False)

    refuse_without_contracts(repository)
    try:
        treat_sigterm_as_ctrl_c()
        messages.print(_ADVICE, style="dim")
        with _loading(messages, repository) as count_loaded:
            server = EmbeddedServer(
                repository,
                grpc_port=grpc_port,
                http_port=http_port,
                metrics_port=metrics_port,
                host=host,
                insecure=insecure,
                tritonserver=tritonserver,
                threads=threads,
                on_log=_print_to_stderr if verbose else count_loaded,
                on_event=on_event,
            )
            started = time.monotonic()
            server.start()
        try:
            ready = True
            _announce(output, server, time.monotonic() - started)
            while not server.gave_up:
                time.sleep(0.5)
        finally:
            server.stop()
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the last lines need no interruption
        messages.print("stopped" if ready else "interrupted before the server was ready; nothing is left running")
        raise typer.Exit(0 if ready else _INTERRUPTED) from error
    raise typer.Exit(1)  # the supervisor gave up, and said so


@documented
def doctor(
    *,
    url: Url = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="A public model to ask; repeatable. Else all that you may list."),
    ] = None,
    json: Json = False,
    timeout: Timeout = None,
    insecure: Insecure = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config: Config = None,
) -> None:
    """Say what is installed, what is missing, and the command that installs it.

    Of each server that is named: whether it can be reached, certificates and
    their age, Triton's version, clocks, what is closed to this caller, and
    whether its models answer. Nothing is changed. Fails if something is
    broken; what is merely absent, or a warning, is no fault.

    Example: radserve doctor --url gateway.example:8443 --tls-ca ca.pem --model chest_xray
    """
    import json as jsonlib  # noqa: PLC0415 - with the rest
    from dataclasses import asdict  # noqa: PLC0415 - with the rest

    from rich.console import Console  # noqa: PLC0415 - slow
    from rich.markup import escape  # noqa: PLC0415 - slow

    from radserve_server.checks import Status  # noqa: PLC0415 - with the rest
    from radserve_server.doctor import examine  # noqa: PLC0415 - slow

    load = partial(
        options_of,
        url,
        timeout=timeout,
        insecure=insecure,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        config=config,
    )
    checks = examine(load if names_server(url, config) else None, model or ())
    if json:
        print(jsonlib.dumps([asdict(check) for check in checks], indent=2))  # noqa: T201 - for programs
    else:
        output = Console(soft_wrap=True, highlight=False)
        for check in checks:
            output.print(f"{_MARKS[check.status.value]} {escape(check.name)}: {escape(check.detail)}")
            if check.fix:
                output.print(f"        -> {check.fix}", markup=False)
    if any(check.status is Status.BROKEN for check in checks):
        raise typer.Exit(1)


def refuse_without_contracts(repository: Path) -> None:
    """What is served without a contract, no client could ask."""
    from radserve.contracts import CONTRACT_PARAMETER  # noqa: PLC0415 - with the rest
    from radserve.errors import ServerStartError  # noqa: PLC0415 - with the rest

    configs = repository.glob("*/config.pbtxt")
    if repository.is_dir() and not any(CONTRACT_PARAMETER.encode() in config.read_bytes() for config in configs):
        msg = (
            f"{repository} holds no model with a contract: export one into it"
            f" (radserve export SPEC --repository {repository}), or name the folder that holds the models"
        )
        raise ServerStartError(msg)


def treat_sigterm_as_ctrl_c() -> None:
    """Let both raise KeyboardInterrupt, in this thread."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # A shell starts background jobs with Ctrl-C ignored; whoever sends it to this process means it.
    signal.signal(signal.SIGINT, interrupt)


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - the server's log, as it is


@contextmanager
def _loading(console: Console, repository: Path) -> Iterator[Callable[[str], None]]:
    """Show progress; yields what counts the models as the log names them."""
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    total = sum(1 for _ in repository.glob("*/config.pbtxt"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("loading models", total=total)
        yield lambda line: progress.advance(task) if _LOADED in line else None


def _announce(output: Console, server: EmbeddedServer, took_s: float) -> None:
    output.print(f"models   {', '.join(server.models)}", markup=False)
    output.print(f"gRPC     {server.grpc_url}")
    output.print(f"HTTP     http://{server.http_url}")
    output.print(f"metrics  http://{server.metrics_url}/metrics")
    each = "an equal share for each instance" if server.threads is None else f"{server.threads} threads an instance"
    output.print(f"cores    {server.cores}, {each}")
    output.print(f"ready after {took_s:.1f} s; Ctrl-C stops it")
