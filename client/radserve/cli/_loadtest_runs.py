"""Loads of a load test in turn, ended by Ctrl-C; and what is written of them."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from radserve.cli._loadtest_inputs import workers_of
from radserve.cli._loadtest_show import Live
from radserve.errors import InputError, RadserveError
from radserve.files import write_file
from radserve.loadtest import Goal, Plan, Scenario, csv_files, dump_html, dump_report, measure
from radserve.loadtest._svg import require_matplotlib

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve.contracts import Contract
    from radserve.loadtest import Report, Run
    from radserve.options import ClientOptions

    Measure = Callable[[Plan], Awaitable[Run]]


class Asked(NamedTuple):
    """The loads that the options ask for."""

    scenario: Scenario
    given: dict[str, Any]
    goal: Goal | None
    swept: tuple[int, ...]

    def plan(self, contract: Contract, **instead: float) -> Plan:
        """The plan for a model, with these attributes instead."""
        given = {**self.given, **instead}
        workers = given["workers"] or workers_of(self.scenario, given["concurrency"])
        if self.swept:
            workers = min(workers, given["concurrency"])
        return Plan.of(self.scenario, contract, **given | {"workers": workers})

    def plans(self, contract: Contract) -> list[Plan]:
        """Each load that is known before anything is measured; of a search, the shape of them all."""
        if self.goal is not None:
            return [self.plan(contract, rate=1.0 if self.given["rate"] is None else self.given["rate"])]
        return [self.plan(contract, concurrency=one) for one in self.swept] or [self.plan(contract)]


def goal_of(slo: str | None, *, is_search: bool) -> Goal | None:
    """What a search must meet; None where nothing is searched for.

    Raises:
        typer.BadParameter: One is there without the other.
    """
    if is_search != (slo is not None):
        msg = "--find-max-rate and --slo belong together: --find-max-rate --slo p99=50ms"
        raise typer.BadParameter(msg)
    return None if slo is None else Goal.of(slo)


class Target(NamedTuple):
    """What is loaded: a model on servers, and what it is sent."""

    contract: Contract
    options: ClientOptions
    payloads: Sequence[dict[str, NDArray[Any]]]


async def measure_in_turn(
    target: Target, loads: Callable[[Measure], AsyncIterator[Run]]
) -> tuple[tuple[Run, ...], str | None]:
    """Measure loads until they are over, Ctrl-C ends them, or nothing more can be measured.

    Args:
        target: What is loaded.
        loads: Takes what measures one load, and gives each run.

    Returns:
        The runs, and why no more could be measured.

    Raises:
        RadserveError: Nothing could be measured.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)  # the second one ends all at once
        stop.set()

    runs: list[Run] = []
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        with Live() as live:

            async def one(plan: Plan) -> Run:
                return await measure(plan, *target, stop=stop, progress=partial(live.show, plan))

            async for run in loads(one):
                runs.append(run)  # noqa: PERF401 - kept when a later one raises
    except RadserveError as error:
        if not runs:
            raise
        return tuple(runs), str(error)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return tuple(runs), None


class Files(NamedTuple):
    """Where to write what was measured."""

    json: Path | None
    csv: Path | None
    html: Path | None

    def check(self) -> None:
        """See before anything is measured that it can be written.

        Raises:
            InputError: One cannot be, or two are the same.
            MissingExtraError: What the page needs is not installed.
        """
        given = [path for path in self if path is not None]
        for path in given:
            _check_place(path)
        if len({path.absolute() for path in given}) < len(given):
            msg = "give --json, --csv and --html a file each"
            raise InputError(msg)
        if self.html is not None:
            require_matplotlib()

    def write(self, report: Report) -> None:
        """Write the report in each form that is asked for.

        Raises:
            InputError: One cannot be written: what was there is still there, and the others are written.
        """
        problems = []
        for path, content in self._contents(report):
            try:
                write_file(path, content)
            except InputError as error:  # noqa: PERF203 - a few files
                problems.append(error)
        if problems:
            raise problems[0]

    def _contents(self, report: Report) -> Iterator[tuple[Path, bytes]]:
        if self.json is not None:
            yield self.json, dump_report(report)
        for path, text in csv_files(self.csv, report).items() if self.csv else ():
            yield path, text.encode()
        if self.html is not None:
            yield self.html, dump_html(report).encode()


def _check_place(path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        msg = f"there is no folder {path.parent} to write {path.name} to"
        raise InputError(msg)
    if path.is_dir():
        msg = f"{path} is a folder: name a file in it"
        raise InputError(msg)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return  # a stream, a device, or a file elsewhere
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"cannot write to {path}: {error.strerror}"
        raise InputError(msg) from None


def refuse_together(**options: object) -> None:
    """Refuse options that exclude each other, of which more than one is given.

    Raises:
        typer.BadParameter: Naming them.
    """
    given = [
        f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None and value is not False
    ]
    if len(given) > 1:
        msg = f"{' and '.join(given)} exclude each other"
        raise typer.BadParameter(msg)
