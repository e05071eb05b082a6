"""``radserve predict``: files in, findings out."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from radserve.cli._label_maps import STANDARD_INPUT, picture_paths, write_picture
from radserve.cli._options import Insecure, Json, Timeout, TlsCa, Url, filled_table, tls_from, wide_console
from radserve.client import Client
from radserve.contracts import Task, TextInput
from radserve.errors import InputError, RadserveError
from radserve.options import Priority
from radserve.results import Classification, GeneratedText, Rejection, Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from radserve.client import Model
    from radserve.contracts import Code
    from radserve.results import Region, Result

    Item = tuple[str, "str | bytes | RadserveError"]

_PROGRESS_FROM = 4
_WHOLE_FROM = 99.5  # mm²: from here on three digits are a whole number
_COLUMNS = ("input", "answer", "probability", "decision", "code", "version", "label map")


class _Answered(NamedTuple):
    """An input's name, what came of it, and where its label map was written."""

    name: str
    answer: Result | RadserveError
    label_map: Path | None = None


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
        typer.Option("--output", help="Folder for label maps: a.png for a.dcm (pixels are label numbers)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite label maps that are there already.")] = False,
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
        _check_usage(served, text=bool(text), output=bool(output))
        names = [name for given in inputs or [] for name in _names(given, reads_text=reads_text)]
        items = [_item(name, reads_text=reads_text) for name in names]
        wanted = ".txt file" if reads_text else "file"
        items += [
            (given, InputError(f"the folder holds no {wanted}")) for given in inputs or [] if _is_empty(given, names)
        ]
        items += [(f"text {number}", given) for number, given in enumerate(text or [], start=1)]
        urgency = None if priority is None else Priority[priority.name]
        answers = _answers(served, items, urgency, frame)
        if output:
            paths = picture_paths([name for name, _ in items], output, force=force)
            answers = _saved(answers, paths, force=force)
        failed = _print_lines(answers) if json else _print_table(answers, len(items), served.contract.intended_use)
    raise typer.Exit(1 if failed else 0)


def _check_usage(served: Model, *, text: bool, output: bool) -> None:
    """Refuse once what would be refused of every input."""
    task = served.contract.task
    problem = None
    if task is Task.TENSORS:
        problem = "takes tensors as they are: call infer() from Python instead"
    elif text and not isinstance(served.contract.input, TextInput):
        problem = "reads files: leave --text out"
    elif output and task is not Task.IMAGE_SEGMENTATION:
        problem = "gives no label maps: leave --output out"
    if problem:
        msg = f"model {served.name} {problem}"
        raise InputError(msg)


def _names(given: str, *, reads_text: bool) -> list[str]:
    """An input, or the files in a folder: all that end in .txt for text models, all but tables and hidden ones else."""
    if given == STANDARD_INPUT or not Path(given).is_dir():
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
        return name, sys.stdin.buffer.read() if name == STANDARD_INPUT else name
    try:
        raw = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
        return name, raw.decode()
    except OSError as error:
        return name, InputError(f"the file cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        return name, InputError("the file is not UTF-8 text")


def _answers(model: Model, items: list[Item], priority: Priority | None, frame: int | None) -> Iterator[_Answered]:
    readable = (source for _, source in items if not isinstance(source, RadserveError))
    answers = model.predict_many(readable, frame=frame, priority=priority)
    for name, source in items:
        answer = source if isinstance(source, RadserveError) else next(answers)
        yield _Answered(name, answer.error if isinstance(answer, Rejection) else answer)


def _saved(answers: Iterator[_Answered], paths: Sequence[Path], *, force: bool) -> Iterator[_Answered]:
    """Write the label maps as they pass."""
    for answered, path in zip(answers, paths, strict=True):
        if isinstance(answered.answer, Segmentation):
            write_picture(answered.answer.label_map, path, force=force)
            yield answered._replace(label_map=path)
        else:
            yield answered


def _print_lines(answers: Iterator[_Answered]) -> int:
    failed = 0
    for name, answer, label_map in answers:
        plain: dict[str, Any] = {"input": name}
        if isinstance(answer, RadserveError):
            failed += 1
            plain["error"] = {"type": type(answer).__name__, "message": str(answer)}
        else:
            plain |= answer.to_dict()
            plain |= {"label_map": str(label_map)} if label_map else {}
        typer.echo(jsonlib.dumps(plain, ensure_ascii=False, allow_nan=False))
    return failed


def _print_table(answers: Iterator[_Answered], total: int, intended_use: str) -> int:
    failed = 0
    rows: list[tuple[str | Text, ...]] = []
    with Progress(console=Console(stderr=True), transient=True, disable=total < _PROGRESS_FROM) as progress:
        for name, answer, label_map in progress.track(answers, total=total, description="predicting"):
            if isinstance(answer, RadserveError):
                failed += 1
                refusal = Text(f"{type(answer).__name__}: {answer}", style="red")
                rows.append((_printable(name), refusal, *[""] * (len(_COLUMNS) - 2)))
                continue
            where = _printable(str(label_map)) if label_map else ""
            rows += [(_printable(name), *cells, str(answer.version), where) for cells in _rows(answer)]
    console = wide_console()
    console.print(filled_table(_COLUMNS, rows))
    if intended_use:
        console.print(Text(intended_use))
    return failed


def _printable(name: str) -> Text:
    return Text("".join(character if character.isprintable() else "?" for character in name))


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
    """Pixels, and the area to three digits: the smallest lesion has one that is not 0."""
    if region.area_mm2 is None:
        return f"{region.label}: {region.pixel_count} pixels"
    area = f"{region.area_mm2:.0f}" if region.area_mm2 >= _WHOLE_FROM else f"{region.area_mm2:.3g}"
    return f"{region.label}: {region.pixel_count} pixels ({area} mm²)"


def _code(code: Code) -> Text:
    return Text(f"{code.value} {code.scheme}")
