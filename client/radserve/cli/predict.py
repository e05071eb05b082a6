"""``radserve predict``: files in, findings out."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from rich.text import Text

from radserve.cli._options import Insecure, Json, Timeout, TlsCa, Url, tls_from, wide_console
from radserve.client import Client
from radserve.contracts import Task, TextInput
from radserve.errors import InputError, RadserveError
from radserve.options import Priority
from radserve.results import Classification, GeneratedText, Rejection, Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve.client import Model
    from radserve.contracts import Code
    from radserve.results import Region, Result

    Item = tuple[str, "str | bytes | RadserveError"]
    Answered = tuple[str, Result | RadserveError]

_STANDARD_INPUT = "-"
_PROGRESS_FROM = 4
_COLUMNS = ("probability", "decision", "code", "version")


class Urgency(str, Enum):
    """Names of the priorities on the command line."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


def predict(
    model: Annotated[str, typer.Argument(help="The public model's name; see 'radserve models'.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Files, folders (DICOM files, or .txt files for text models), or -."),
    ] = None,
    *,
    url: Url,
    text: Annotated[list[str] | None, typer.Option("--text", help="A report's text, for text models.")] = None,
    json: Json = False,
    priority: Annotated[Urgency | None, typer.Option("--priority", help="How urgent it is.")] = None,
    frame: Annotated[
        int | None, typer.Option("--frame", min=0, help="Frame of a multi-frame image, counted from 0.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Folder for label maps: 0001.png for the first input (pixels are label numbers)."
        ),
    ] = None,
    timeout: Timeout = 30.0,
    insecure: Insecure = False,
    tls_ca: TlsCa = None,
) -> None:
    """Answer DICOM files, or report texts; exit 1 if any of them failed.

    Example: radserve predict chest_xray study/ --url localhost:8001 --json
    """
    if not inputs and not text:
        msg = "give an INPUT, or a report with --text"
        raise typer.BadParameter(msg)
    with Client(url, tls=tls_from(tls_ca), insecure=insecure, timeout_s=timeout) as client:
        served = client.model(model)
        reads_text = isinstance(served.contract.input, TextInput)
        if text and not reads_text:
            msg = f"model {model} reads files: leave --text out"
            raise InputError(msg)
        if output and served.contract.task is not Task.IMAGE_SEGMENTATION:
            msg = f"model {model} gives no label maps: leave --output out"
            raise InputError(msg)
        names = [name for given in inputs or [] for name in _names(given, reads_text=reads_text)]
        items = [_item(name, reads_text=reads_text) for name in names]
        wanted = ".txt file" if reads_text else "file"
        items += [
            (given, InputError(f"the folder holds no {wanted}")) for given in inputs or [] if _is_empty(given, names)
        ]
        items += [(f"text {number}", given) for number, given in enumerate(text or [], start=1)]
        urgency = None if priority is None else Priority[priority.name]
        answers = _answers(served, items, urgency, frame)
        answers = _saved(answers, output) if output else answers
        failed = _print_lines(answers) if json else _print_table(answers, len(items), served.contract.intended_use)
    raise typer.Exit(1 if failed else 0)


def _names(given: str, *, reads_text: bool) -> list[str]:
    """An input, or the files in a folder: all that end in .txt for text models, all but tables and hidden ones else."""
    if given == _STANDARD_INPUT or not Path(given).is_dir():
        return [given]
    found = []
    for folder, folders, files in os.walk(given):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        paths = [Path(folder, entry) for entry in sorted(files) if not entry.startswith(".")]
        found += [str(path) for path in paths if (path.suffix == ".txt" if reads_text else path.suffix != ".csv")]
    return found


def _is_empty(given: str, names: list[str]) -> bool:
    return Path(given).is_dir() and not any(Path(name).is_relative_to(given) for name in names)


def _item(name: str, *, reads_text: bool) -> Item:
    """An input's name, and its source or why it has none."""
    if not reads_text:
        return name, sys.stdin.buffer.read() if name == _STANDARD_INPUT else name
    try:
        raw = sys.stdin.buffer.read() if name == _STANDARD_INPUT else Path(name).read_bytes()
        return name, raw.decode()
    except OSError as error:
        return name, InputError(f"the file cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        return name, InputError("the file is not UTF-8 text")


def _answers(model: Model, items: list[Item], priority: Priority | None, frame: int | None) -> Iterator[Answered]:
    readable = (source for _, source in items if not isinstance(source, RadserveError))
    answers = model.predict_many(readable, frame=frame, priority=priority)
    for name, source in items:
        answer = source if isinstance(source, RadserveError) else next(answers)
        yield name, answer.error if isinstance(answer, Rejection) else answer


def _saved(answers: Iterator[Answered], folder: Path) -> Iterator[Answered]:
    """Write the label maps as they pass."""
    from PIL import Image  # noqa: PLC0415 - slow, and seldom needed

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (name, answer) in enumerate(answers, start=1):
            if isinstance(answer, Segmentation):
                Image.fromarray(answer.label_map).save(folder / f"{number:04d}.png")
            yield name, answer
    except OSError as error:
        msg = f"cannot write to {folder}: {error.strerror}"
        raise InputError(msg) from error


def _print_lines(answers: Iterator[Answered]) -> int:
    failed = 0
    for name, answer in answers:
        plain: dict[str, Any] = {"input": name}
        if isinstance(answer, RadserveError):
            failed += 1
            plain["error"] = {"type": type(answer).__name__, "message": str(answer)}
        else:
            plain |= answer.to_dict()
        typer.echo(jsonlib.dumps(plain, ensure_ascii=False, allow_nan=False))
    return failed


def _print_table(answers: Iterator[Answered], total: int, intended_use: str) -> int:
    failed = 0
    table = Table(Column("input", overflow="fold"), Column("answer", overflow="fold"), *_COLUMNS)
    with Progress(console=Console(stderr=True), transient=True, disable=total < _PROGRESS_FROM) as progress:
        for name, answer in progress.track(answers, total=total, description="predicting"):
            shown = Text("".join(character if character.isprintable() else "?" for character in name))
            if isinstance(answer, RadserveError):
                failed += 1
                table.add_row(shown, Text(f"{type(answer).__name__}: {answer}", style="red"))
                continue
            for cells in _rows(answer):
                table.add_row(shown, *cells, str(answer.version))
    console = wide_console()
    console.print(table)
    if intended_use:
        console.print(Text(intended_use))
    return failed


def _rows(answer: Result) -> list[tuple[Text, str, str, Text]]:
    """Answer, probability, decision and code: of the most probable finding, of every region, of a text."""
    if isinstance(answer, Classification):
        top = answer.top
        decision = "positive" if top.is_positive else "indeterminate" if top.is_indeterminate else "negative"
        return [(Text(top.label), f"{top.probability:.3f}", decision, _code(top.code))]
    if isinstance(answer, Segmentation):
        return [
            (Text(_extent(region)), "", "positive" if region.is_positive else "negative", _code(region.code))
            for region in answer.findings
        ]
    if isinstance(answer, GeneratedText):
        return [(Text(answer.text), "", "" if answer.is_complete else "cut off", Text())]
    return [(Text(repr(answer)), "", "", Text())]


def _extent(region: Region) -> str:
    area = "" if region.area_mm2 is None else f" ({region.area_mm2:.0f} mm²)"
    return f"{region.label}: {region.pixel_count} pixels{area}"


def _code(code: Code) -> Text:
    return Text(f"{code.value} {code.scheme}")
