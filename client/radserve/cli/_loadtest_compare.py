"""Two load tests' reports beside each other on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.table import Column, Table

from radserve.cli._options import wide_console
from radserve.cli._show import printable
from radserve.errors import InputError
from radserve.files import write_file
from radserve.loadtest import compare, parse_report

if TYPE_CHECKING:
    from pathlib import Path

    from radserve.loadtest import Comparison, Report
    from radserve.loadtest._compare import Change

_LARGEST = 256 * 2**20
_NOTE = (
    "Ratio: second to first. A verdict is wrong for 1 of 20 equal servers; run both again, or with"
    " --sweep 8,8,8, where it matters: what a restart changes is in no single run."
)


def print_comparison(before: Path, after: Path, json: Path | None) -> None:
    """Print whether two reports differ, and write it as JSON where a file is named.

    Raises:
        InputError: One is no report, or they cannot be compared.
    """
    comparison = compare(_read(before), _read(after))
    console = wide_console()
    for load in comparison.loads:
        columns = (Column(name, justify="right") for name in ("first", "second", "ratio", "95 % from", "to"))
        table = Table(load.load, *columns, "verdict")
        for change in load.changes:
            table.add_row(*_cells(change))
        console.print(table)
    for warning in comparison.warnings:
        console.print(printable(f"note: {warning}"), highlight=False, soft_wrap=True)
    console.print(_NOTE, highlight=False, soft_wrap=True)
    if json is not None:
        write_file(json, _dump(comparison))


def _cells(change: Change) -> tuple[str, ...]:
    is_time = change.figure.startswith("p")
    scale = 1e3 if is_time else 1.0
    ratio = change.ratio
    ends = ("-" if end is None else f"{end:.3f}" for end in (ratio.low, ratio.high))
    return (
        f"{change.figure} (ms)" if is_time else change.figure,
        f"{scale * change.before:.4g}",
        f"{scale * change.after:.4g}",
        f"{ratio.value:.3f}",
        *ends,
        change.verdict.value,
    )


def _dump(comparison: Comparison) -> bytes:
    return msgspec.json.format(msgspec.json.encode(comparison), indent=1) + b"\n"


def _read(path: Path) -> Report:
    try:
        if path.stat().st_size > _LARGEST:
            msg = f"{path} is too large for a report"
            raise InputError(msg)
        text = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise InputError(msg) from None
    try:
        return parse_report(text)
    except InputError as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from error
