"""Answers as lines of JSON, and as a table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from radserve.cli._options import filled_table, wide_console
from radserve.errors import RadserveError
from radserve.journal import to_line
from radserve.results import Classification, GeneratedText, Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from radserve.cli._inputs import Item
    from radserve.contracts import Code
    from radserve.results import Region, Result

_PROGRESS_FROM = 4
_DOING = "predicting"
_COLUMNS = ("input", "answer", "probability", "decision", "code", "version", "label map")


class Answered(NamedTuple):
    """An input, what came of it, and where its label map was written."""

    item: Item
    answer: Result | RadserveError
    label_map: Path | None = None


def progress_bar(total: int, *, beside_lines: bool = False) -> Progress:
    """A bar on standard error, where there is a terminal and enough to wait for; nothing of it stays.

    Args:
        total: Inputs.
        beside_lines: Answers are printed meanwhile, which tell as much where they go to the terminal, too.
    """
    console = Console(stderr=True)
    is_shown = total >= _PROGRESS_FROM and console.is_terminal and not (beside_lines and sys.stdout.isatty())
    # rich would send to its own console, standard error, what is written to sys.stdout meanwhile.
    return Progress(console=console, transient=True, redirect_stdout=False, disable=not is_shown)


def print_lines(answers: Iterator[Answered], total: int) -> int:
    """Print a line for each answer as it comes; the number of failures."""
    failed = 0
    with progress_bar(total, beside_lines=True) as progress:
        for item, answer, label_map in progress.track(answers, total=total, description=_DOING):
            plain: dict[str, Any] = {"input": item.name}
            if isinstance(answer, RadserveError):
                failed += 1
                plain["error"] = {"type": type(answer).__name__, "message": str(answer)}
            else:
                plain |= answer.to_dict()
                plain |= {"label_map": str(label_map)} if label_map else {}
            typer.echo(to_line(plain), nl=False)
    return failed


def print_table(answers: Iterator[Answered], total: int, intended_use: str) -> int:
    """Print a table when all answers are there, or none will come any more; the number of failures."""
    failed = 0
    rows: list[tuple[str | Text, ...]] = []
    try:
        with progress_bar(total) as progress:
            for item, answer, label_map in progress.track(answers, total=total, description=_DOING):
                name = printable(item.name)
                if isinstance(answer, RadserveError):
                    failed += 1
                    refusal = Text(f"{type(answer).__name__}: {answer}", style="red")
                    rows.append((name, refusal, *[""] * (len(_COLUMNS) - 2)))
                    continue
                where = printable(str(label_map)) if label_map else ""
                rows += [(name, *cells, str(answer.version), where) for cells in _rows(answer)]
    finally:  # Ctrl-C, too: what was answered until then is shown
        if rows:
            console = wide_console()
            console.print(filled_table(_COLUMNS, rows))
            if intended_use:
                console.print(Text(intended_use))
    return failed


def printable(name: str) -> Text:
    """A name that cannot steer a terminal."""
    return Text("".join(character if character.isprintable() else "?" for character in name))


def _rows(answer: Result) -> list[tuple[Text, str, str, Text]]:
    """Answer, probability, decision and code: of the most probable finding, of every region, of a text."""
    if isinstance(answer, Classification):
        top = answer.top
        decision = "positive" if top.is_positive else "indeterminate" if top.is_indeterminate else "negative"
        return [(Text(top.label), f"{top.probability:.3f}", decision, _code(top.code))]
    if isinstance(answer, Segmentation):
        return [
            (Text(extent(region)), "", "positive" if region.is_positive else "negative", _code(region.code))
            for region in answer.findings
        ]
    if isinstance(answer, GeneratedText):
        return [(Text(answer.text), "", "" if answer.is_complete else "cut off", Text())]
    return [(Text(repr(answer)), "", "", Text())]


def extent(region: Region) -> str:
    """A region and how large it is."""
    return f"{region.label}: {region.extent}"


def _code(code: Code) -> Text:
    return Text(f"{code.value} {code.scheme}")
