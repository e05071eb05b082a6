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
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from typing_extensions import Self

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


class Tally:
    """Counts answers, and says at the end how many there were, unless all are there or there is one input alone.

    Args:
        total: Inputs.

    Attributes:
        total: As given.
        failed: How many have no answer, for whatever reason.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.failed = 0
        self._answered = 0
        self._refused = 0

    def count(self, answers: Iterable[Answered]) -> Iterator[Answered]:
        """Pass answers on."""
        for answered in answers:
            if isinstance(answered.answer, RadserveError):
                self.failed += 1
                self._refused += answered.answer.is_final
            else:
                self._answered += 1
            yield answered

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.total in (self._answered, 1):
            return
        parts = [f"{self._answered} answered", f"{self._refused} refused"]
        if unanswered := self.failed - self._refused:
            parts.append(f"{unanswered} failed")
        if left := self.total - self._answered - self.failed:
            parts.append(f"{left} left")
        typer.echo(f"radserve: {', '.join(parts)}", err=True)


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


def print_lines(answers: Iterator[Answered], total: int) -> None:
    """Print a line for each answer as it comes."""
    with progress_bar(total, beside_lines=True) as progress:
        for item, answer, label_map in progress.track(answers, total=total, description=_DOING):
            plain: dict[str, Any] = {"input": item.name}
            if isinstance(answer, RadserveError):
                plain["error"] = {"type": type(answer).__name__, "message": str(answer)}
            else:
                plain |= answer.to_dict()
                plain |= {"label_map": str(label_map)} if label_map else {}
            typer.echo(to_line(plain), nl=False)


def print_table(answers: Iterator[Answered], total: int, intended_use: str) -> None:
    """Print a table when all answers are there, or none will come any more."""
    rows: list[tuple[str | Text, ...]] = []
    try:
        with progress_bar(total) as progress:
            for item, answer, label_map in progress.track(answers, total=total, description=_DOING):
                name = printable(item.name)
                if isinstance(answer, RadserveError):
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


def printable(name: str) -> Text:
    """A name that cannot steer a terminal."""
    return Text("".join(character if character.isprintable() else "?" for character in name))


def _rows(answer: Result) -> list[tuple[Text, str, str, Text]]:
    """Answer, probability, decision and code: of the most probable finding, of every region, of a text."""
    if isinstance(answer, Classification):
        top = answer.top
        return [(Text(top.label), f"{top.probability:.3f}", top.presence, _code(top.code))]
    if isinstance(answer, Segmentation):
        return [
            (Text(extent(region)), "", "present" if region.is_positive else "absent", _code(region.code))
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
