"""``radserve loadtest``: what a served model stands."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timezone
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from radserve.cli._loadtest_compare import print_comparison
from radserve.cli._loadtest_inputs import payloads_for
from radserve.cli._loadtest_runs import Asked, Files, Target, goal_of, measure_in_turn, refuse_together
from radserve.cli._loadtest_show import print_run, print_runs, problem_of, problem_of_all
from radserve.cli._options import Config, Insecure, Timeout, TlsCa, TlsCert, TlsKey, Url, documented, options_of
from radserve.cli.predict import Urgency  # noqa: TC001 - typer reads the annotations
from radserve.client import Client
from radserve.errors import InputError
from radserve.loadtest import (
    Ending,
    RateSearch,
    Report,
    Scenario,
    climb,
    concurrencies,
    sweep,
    this_machine,
)
from radserve.options import Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve.cli._loadtest_inputs import Arrays
    from radserve.client import Model
    from radserve.loadtest import Run
    from radserve.options import ClientOptions

_INTERRUPTED = 130


@documented
def loadtest(
    model: Annotated[str | None, typer.Argument(help="The public model's name; see 'radserve models'.")] = None,
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
        float | None, typer.Option("--percentile", help="The latency that must be stable: 99 is p99; 95.")
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
    sweep_over: Annotated[
        str | None,
        typer.Option("--sweep", metavar="1,2,4,8", help="Measure with each of these concurrencies in turn."),
    ] = None,
    find_max_rate: Annotated[
        bool, typer.Option("--find-max-rate", help="Search for the highest rate that meets --slo (server).")
    ] = False,
    slo: Annotated[
        str | None, typer.Option("--slo", metavar="p99=50ms", help="How fast answers must be for --find-max-rate.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A.json B.json", help="Say whether two reports differ; measures nothing."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all that was measured to this file.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a line for each run, and NAME.windows.csv beside it."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with pictures, which needs no other file."),
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
    study/ sends real files one at a time; --scenario offline asks for the most throughput; --sweep 1,2,4,8
    --html load.html draws throughput against latency; --find-max-rate --slo p99=50ms finds what the server stands;
    --compare before.json after.json says whether a change is real.
    """
    files = Files(json, csv, html)
    if compare is not None:
        _refuse_beside_compare(model=model, sweep=sweep_over, find_max_rate=find_max_rate, csv=csv, html=html)
        files.check()
        print_comparison(*compare, json)
        return
    if model is None:
        msg = "name the model, or two reports with --compare"
        raise typer.BadParameter(msg)
    options = options_of(
        url, timeout=timeout, insecure=insecure, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, config=config
    )
    files.check()
    refuse_together(find_max_rate=find_max_rate, sweep=sweep_over)
    refuse_together(find_max_rate=find_max_rate, percentile=percentile)
    refuse_together(sweep=sweep_over, concurrency=concurrency)
    refuse_together(sweep=sweep_over, rate=rate)
    goal = goal_of(slo, is_search=find_max_rate)
    asked = Asked(
        scenario=scenario or (Scenario.CLOSED_LOOP if rate is None and goal is None else Scenario.SERVER),
        given={
            "concurrency": concurrency,
            "rate": rate,
            "inputs_per_request": batch,
            "percentile": percentile if goal is None else goal.percent,
            "warm_up_s": warm_up,
            "window_s": window,
            "tolerance": tolerance,
            "longest_s": longest,
            "duration_s": duration,
            "workers": workers,
            "seed": seed,
            "priority": None if priority is None else int(Priority[priority.name]),
            "timeout_s": options.timeout_s,
        },
        goal=goal,
        swept=() if sweep_over is None else concurrencies(sweep_over),
    )
    report = _measured(model, inputs or [], asked, options)
    is_one = goal is None and not asked.swept
    print_run(report, report.runs[0]) if is_one else print_runs(report)
    files.write(report)
    if any(run.ending is Ending.INTERRUPTED for run in report.runs):
        raise typer.Exit(_INTERRUPTED)
    if told := problem_of(report.runs[0]) if is_one else problem_of_all(report):
        raise InputError(told)


def _refuse_beside_compare(**options: object) -> None:
    for name, value in options.items():
        refuse_together(compare=True, **{name: value})


def _measured(model: str, inputs: Sequence[str], asked: Asked, options: ClientOptions) -> Report:
    """Measure what is asked.

    Raises:
        RadserveError: Nothing could be measured.
    """
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with Client(options=options) as client:
        served = client.model(model)
        plans = asked.plans(served.contract)
        payloads, sent = payloads_for(served, inputs, plans[0])
        served.infer(payloads[0])  # what is wrong with model or inputs is told before anything is measured
        contract = served.contract
        goal = asked.goal
        search = None if goal is None else RateSearch(goal, asked.given["rate"] or _rate_of(served, payloads))
    target = Target(contract, options, payloads)
    runs: tuple[Run, ...]
    if search is None:
        runs, cut_short = asyncio.run(measure_in_turn(target, lambda measure: sweep(plans, measure)))
    else:
        runs, cut_short = asyncio.run(
            measure_in_turn(
                target, lambda measure: climb(search, lambda rate: measure(asked.plan(contract, rate=rate)))
            )
        )
    return Report(
        began=began,
        model=contract.name,
        version=contract.version,
        contract_sha256=contract.sha256,
        servers=options.endpoints,
        machine=this_machine(),
        inputs=sent,
        runs=runs,
        search=None if search is None else search.answer(cut_short),
        cut_short=cut_short,
    )


def _rate_of(served: Model, payloads: Sequence[Arrays]) -> float:
    """What one request at a time reaches: where a search begins."""
    begin = time.perf_counter()
    served.infer(payloads[0])
    return 1 / (time.perf_counter() - begin)
