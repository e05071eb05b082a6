"""``radserve loadtest``: what a served model stands."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radserve.cli._inputs import Inputs as Named
from radserve.cli._loadtest_show import Live, print_run, problem_of
from radserve.cli._options import Config, Insecure, Timeout, TlsCa, TlsCert, TlsKey, Url, documented, options_of
from radserve.cli.predict import Urgency  # noqa: TC001 - typer reads the annotations
from radserve.client import Client
from radserve.errors import InputError
from radserve.loadtest import (
    Ending,
    Inputs,
    Plan,
    Report,
    Scenario,
    dump_report,
    mean_bytes,
    measure,
    payloads_of,
    rows_of,
    synthetic,
    this_machine,
)
from radserve.loadtest._figures import ErrorCount
from radserve.options import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from radserve.cli._inputs import Item
    from radserve.client import Model
    from radserve.contracts import Contract
    from radserve.loadtest import Run, Window
    from radserve.options import ClientOptions

    Arrays = dict[str, NDArray[Any]]

_INTERRUPTED = 130
_MOST_WORKERS = 8


@documented
def loadtest(
    model: Annotated[str, typer.Argument(help="The public model's name; see 'radserve models'.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Files or folders (DICOM files, or .txt files for text models), read once and sent in turn;"
            " without any, inputs are made of the model's contract.",
        ),
    ] = None,
    *,
    url: Url = None,
    scenario: Annotated[
        Scenario | None,
        typer.Option(
            "--scenario",
            help="How requests are sent, the first four as MLPerf names them; server with --rate, else closed-loop.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Requests in flight (closed-loop, offline); 1 else.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Requests per second that are due, at random times (server).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Inputs in each request; the model's most in offline, else 1.")
    ] = None,
    percentile: Annotated[
        float | None, typer.Option("--percentile", help="The latency that must be stable: 99 is p99.")
    ] = None,
    warm_up: Annotated[
        float | None, typer.Option("--warm-up", metavar="SECONDS", help="Not counted at the begin; 2.")
    ] = None,
    window: Annotated[
        float | None, typer.Option("--window", metavar="SECONDS", help="Three windows in a row must agree; 5.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="How far windows may be from their mean; 0.1.")
    ] = None,
    longest: Annotated[
        float | None, typer.Option("--longest", metavar="SECONDS", help="Give up agreement after so long; 60.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="SECONDS", help="Measure exactly so long, and report it all.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that send; half of the processors.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of arrival times and made inputs; 0.")] = None,
    priority: Annotated[Urgency | None, typer.Option("--priority", help="How urgent the requests are.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all that was measured to this file.")
    ] = None,
    timeout: Timeout = None,
    insecure: Insecure = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config: Config = None,
) -> None:
    """Measure throughput and latency of a model under load; Ctrl-C ends with what was measured.

    Sends until three windows agree in throughput and latency, and says where the time goes in the server.
    Exit 1 if nothing valid was measured: the load generator or the server could not keep up, or no answer was good.
    Requests are not noted in the audit log.

    Example: radserve loadtest chest_xray --url localhost:8001 --concurrency 8 --json run.json

    More: --rate 50 sends at random times, however slow the answers; --scenario single-stream
    study/ sends real files one at a time; --scenario offline asks for the most throughput.
    """
    options = options_of(
        url, timeout=timeout, insecure=insecure, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, config=config
    )
    if json is not None and not json.absolute().parent.is_dir():
        msg = f"there is no folder {json.parent} to write {json.name} to"
        raise InputError(msg)
    how = scenario or (Scenario.CLOSED_LOOP if rate is None else Scenario.SERVER)
    given = {
        "concurrency": concurrency,
        "rate": rate,
        "inputs_per_request": batch,
        "percentile": percentile,
        "warm_up_s": warm_up,
        "window_s": window,
        "tolerance": tolerance,
        "longest_s": longest,
        "duration_s": duration,
        "workers": workers or _workers(how, concurrency),
        "seed": seed,
        "priority": None if priority is None else int(Priority[priority.name]),
        "timeout_s": options.timeout_s,
    }
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with Client(options=options) as client:
        served = client.model(model)
        plan = Plan.of(how, served.contract, **given)
        payloads, sent = _payloads(served, inputs or [], plan)
        served.infer(payloads[0])  # what is wrong with model or inputs is told before anything is measured
        contract = served.contract
    with Live(plan) as live:
        run = asyncio.run(_run(plan, contract, options, payloads, live.show))
    report = Report(
        began=began,
        model=contract.name,
        version=contract.version,
        contract_sha256=contract.sha256,
        servers=options.endpoints,
        machine=this_machine(),
        inputs=sent,
        runs=(run,),
    )
    print_run(report, run)
    if json is not None:
        json.write_bytes(dump_report(report))
    if run.ending is Ending.INTERRUPTED:
        raise typer.Exit(_INTERRUPTED)
    if problem := problem_of(run):
        raise InputError(problem)


def _workers(scenario: Scenario, concurrency: int | None) -> int:
    """Half of the processors, the other half being the server's where it is on this machine."""
    if scenario in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM):
        return 1
    most = max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)) // 2))
    return min(most, concurrency or 1) if scenario is Scenario.CLOSED_LOOP else most


def _payloads(served: Model, names: Sequence[str], plan: Plan) -> tuple[list[Arrays], Inputs]:
    """What to send, read or made, and a word about it.

    Raises:
        InputError: None of the files can be used.
    """
    contract = served.contract
    refused: Counter[str] = Counter()
    messages: dict[str, str] = {}
    named = Named.of(names, [], contract) if names else None

    def prepared() -> Iterator[Arrays]:
        for item in named.items if named else ():
            arrays = _prepared(served, item)
            if isinstance(arrays, InputError):
                refused[type(arrays).__name__] += 1
                messages.setdefault(type(arrays).__name__, f"{item.name}: {arrays}")
            else:
                yield arrays

    rows = synthetic(contract, plan.seed) if named is None else rows_of(contract, prepared())
    if not rows:
        msg = f"no input can be sent: {next(iter(messages.values()), 'no file was found')}"
        raise InputError(msg)
    payloads = payloads_of(contract, rows, plan.inputs_per_request)
    return payloads, Inputs(
        is_synthetic=named is None,
        files=len(named.items) if named else 0,
        count=len(rows),
        requests=len(payloads),
        bytes_per_request=mean_bytes(contract, payloads),
        refused=tuple(
            ErrorCount(type=kind, count=count, message=messages[kind]) for kind, count in refused.most_common()
        ),
    )


def _prepared(served: Model, item: Item) -> Arrays | InputError:
    source = item.source()
    try:
        return source if isinstance(source, InputError) else served.prepare(source)
    except InputError as error:
        return error


async def _run(
    plan: Plan,
    contract: Contract,
    options: ClientOptions,
    payloads: Sequence[Arrays],
    progress: Callable[[Window | None], None],
) -> Run:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)  # the second one ends all at once
        stop.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        return await measure(plan, contract, options, payloads, stop=stop, progress=progress)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
