"""What was measured: the load tester's data model, written as JSON with a schema version.

A Report holds one Run for each load that was put on the model: one of a plain
run, several of a sweep or of a search. A Run holds what was asked (Plan), how it
ended, its Figures, what it cost the client, what the server says of its steps,
and a line for each window, in order.
"""

from __future__ import annotations

import os
import platform
from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec

from radserve._codec import sdk_version
from radserve.contracts._tensors import Struct
from radserve.errors import InputError
from radserve.loadtest._figures import ClientCost, ErrorCount, Figures, Step, Totals, Window
from radserve.loadtest._judge import not_reached
from radserve.loadtest._plan import Plan

SCHEMA_VERSION = 1


class Ending(str, Enum):
    """Why a run was over."""

    STABLE = "stable"  # the last windows agreed
    LIMIT = "limit"  # they did not, within the time allowed
    DURATION = "duration"  # it was to last so long
    INTERRUPTED = "interrupted"  # by Ctrl-C: what was measured until then
    SERVER_LOST = "server lost"  # it stopped answering: what was measured until then
    WORKER_LOST = "worker lost"  # a process that sent died: what was measured until then


class Run(Struct, frozen=True, kw_only=True):
    """One load, put on one model.

    Attributes:
        plan: What was asked.
        ending: Why it was over.
        figures: What was measured; None of a run that is invalid, or without a good answer.
        invalid: Why its figures are no measure of the server: what the load generator could
            not sustain. Empty of a valid run.
        notes: What else a reader must know, a line each: no agreement, a rate that was not reached.
        is_stable: Whether the last windows agreed.
        client: What the load cost its own machine.
        steps: The server's own breakdown, the ensemble first; empty where it tells none (see ``notes``).
        errors: Failures by type, over the whole run.
        totals: All requests.
        windows: Each window, in order.
    """

    plan: Plan
    ending: Ending
    figures: Figures | None
    invalid: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_stable: bool = False
    client: ClientCost
    steps: tuple[Step, ...] = ()
    errors: tuple[ErrorCount, ...] = ()
    totals: Totals
    windows: tuple[Window, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether it was over before its end."""
        return self.ending in (Ending.INTERRUPTED, Ending.SERVER_LOST, Ending.WORKER_LOST)

    @property
    def is_reached(self) -> bool:
        """Whether the server kept up with the offered rate; true of closed loops with a good answer."""
        return self.figures is not None and not_reached(self.figures) is None


class Inputs(Struct, frozen=True, kw_only=True):
    """What was sent, without a word of its contents.

    Attributes:
        is_synthetic: Made of the contract, not read from files.
        files: Files that were named, or found in folders that were.
        count: Inputs that the requests were made of, in turn.
        requests: Different requests.
        bytes_per_request: Mean size of the message.
        refused: Files that the model does not take, by type of the error.
    """

    is_synthetic: bool
    files: int = 0
    count: int
    requests: int
    bytes_per_request: int
    refused: tuple[ErrorCount, ...] = ()


class Machine(Struct, frozen=True, kw_only=True):
    """Where the load was made.

    Attributes:
        processor: Its name.
        processors: How many this process may use.
        system: Kernel and its version.
        python: Python's version.
        radserve: This package's version.
    """

    processor: str
    processors: int
    system: str
    python: str
    radserve: str


def this_machine() -> Machine:
    """Where this process runs."""
    names = [line.partition(":")[2] for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return Machine(
        processor=names[0].strip() if names else platform.machine(),
        processors=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        radserve=sdk_version(),
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


class Search(Struct, frozen=True, kw_only=True):
    """The answer to: which rate does the server stand, and still answer fast enough?

    Attributes:
        percent: Of requests that were to be answered well within ``latency_s``: 99.0 for p99.
        latency_s: The longest that this may take.
        rate: The highest rate that was tried and met this, in requests per second; None where none did.
        limit: What kept the next higher rate from it, in a sentence.
    """

    percent: float
    latency_s: float
    rate: float | None
    limit: str


class Report(Struct, frozen=True, kw_only=True):
    """All runs of one call of ``radserve loadtest``.

    Attributes:
        schema_version: Version of this structure.
        began: When, ISO 8601 in UTC.
        model: The public model's name.
        version: Its version.
        contract_sha256: Its contract's hash.
        servers: ``host:port`` of each.
        machine: Where the load was made.
        inputs: What was sent.
        runs: Each load.
        search: The answer, where a rate was searched for.
        cut_short: Why further loads that were asked for could not be measured.
    """

    schema_version: Annotated[int, msgspec.Meta(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    began: str
    model: str
    version: int
    contract_sha256: str
    servers: tuple[str, ...]
    machine: Machine
    inputs: Inputs
    runs: tuple[Run, ...]
    search: Search | None = None
    cut_short: str | None = None

    @property
    def is_partial(self) -> bool:
        """Whether it was over before its end."""
        return self.cut_short is not None or any(run.is_partial for run in self.runs)


class _Versioned(msgspec.Struct):
    schema_version: int


def dump_report(report: Report) -> bytes:
    """Write a report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def parse_report(text: bytes | str) -> Report:
    """Read a report.

    Args:
        text: JSON.

    Raises:
        InputError: It is none, or one of a newer radserve.
    """
    try:
        schema = msgspec.json.decode(text, type=_Versioned).schema_version
        if schema > SCHEMA_VERSION:
            msg = f"the report has schema version {schema}, this radserve reads up to {SCHEMA_VERSION}: upgrade it"
            raise InputError(msg)
        return msgspec.json.decode(text, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"this is no report of radserve loadtest: {error}"
        raise InputError(msg) from error
