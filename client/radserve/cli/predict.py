"""``radserve predict``: files in, findings out."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from enum import Enum
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from radserve.cli._inputs import Inputs
from radserve.cli._label_maps import picture_paths, write_picture
from radserve.cli._options import Config, Insecure, Json, Timeout, TlsCa, TlsCert, TlsKey, Url, connect, documented
from radserve.cli._show import Answered, Tally, print_lines, print_table, printable, progress_bar
from radserve.contracts import Task, TextInput
from radserve.errors import (
    DeadlineExceededError,
    InputError,
    ModelNotFoundError,
    RadserveError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from radserve.journal import Journal
from radserve.options import Priority
from radserve.results import Rejection, Segmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from radserve.cli._inputs import Item
    from radserve.client import Model
    from radserve.results import Result

    Ask = Callable[[Iterable[Any]], Generator[Result | Rejection, None, None]]

_AWAY = (ServerUnavailableError, DeadlineExceededError, ModelNotFoundError, UnauthenticatedError)
_PATIENCE = 16


class _Job(NamedTuple):
    """An input, and where its label map goes."""

    item: Item
    label_map: Path | None


class Urgency(str, Enum):
    """Names of the priorities on the command line."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


@documented
def predict(
    model: Annotated[str, typer.Argument(help="The public model's name; see 'radserve models'.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Files, folders (DICOM files, or .txt files for text models), or -."),
    ] = None,
    *,
    url: Url = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A report's text, for text models.")] = None,
    json: Json = False,
    priority: Annotated[Urgency | None, typer.Option("--priority", help="How urgent it is.")] = None,
    frame: Annotated[
        int | None, typer.Option("--frame", min=0, help="Frame of a multi-frame image, counted from 0.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File of JSON lines for the answers, written as they come.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that wrote to --out: ask about the rest only.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for label maps: a.png for a.dcm (pixels are label numbers)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite label maps that are there already.")] = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Inputs worked on at the same time.")] = None,
    timeout: Timeout = None,
    insecure: Insecure = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config: Config = None,
) -> None:
    """Answer DICOM files, or report texts; exit 1 if any of them failed.

    Example: radserve predict chest_xray study/ --url localhost:8001 --json
    """
    if not inputs and not text:
        msg = "give an INPUT, or a report with --text"
        raise typer.BadParameter(msg)
    if resume and not out:
        msg = "--resume continues the file of a run: name it with --out"
        raise typer.BadParameter(msg)
    if json and out:
        msg = "--out writes lines of JSON to a file: leave --json out"
        raise typer.BadParameter(msg)
    with connect(
        url,
        timeout=timeout,
        insecure=insecure,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        config=config,
    ) as client:
        served = client.model(model)
        _check_usage(served, text=bool(text), output=bool(output))
        found = Inputs.of(inputs or [], text or [], served.contract)
        if notice := found.notice():
            typer.echo(f"radserve: {notice}", err=True)
        urgency = None if priority is None else Priority[priority.name]
        ask = cast("Ask", partial(served.predict_many, priority=urgency, frame=frame, workers=workers))
        jobs = _jobs(found.items, output, force=force or resume)
        if out:
            with Journal.open(out, model=served.name, frame=frame, resume=resume) as journal:
                failed = _record(ask, jobs, journal)
        else:
            tally = Tally(len(jobs))
            with closing(_while_served(_answers(ask, jobs, force=force))) as answers, tally:
                counted = tally.count(answers)
                if json:
                    print_lines(counted, tally.total)
                else:
                    print_table(counted, tally.total, served.contract.intended_use)
            failed = tally.failed
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


def _jobs(items: Sequence[Item], folder: Path | None, *, force: bool) -> list[_Job]:
    names = [item.name for item in items]
    paths = picture_paths(names, folder, force=force) if folder else [None] * len(items)
    return list(map(_Job, items, paths))


def _answers(ask: Ask, jobs: Sequence[_Job], *, force: bool) -> Generator[Answered, None, None]:
    """Answer inputs in their order; write the label maps as they pass."""
    asked: deque[tuple[_Job, InputError | None]] = deque()

    def sources() -> Iterator[Any]:
        for job in jobs:
            source = job.item.source()
            asked.append((job, source if isinstance(source, InputError) else None))
            if not isinstance(source, InputError):
                yield source

    def refused() -> Iterator[Answered]:
        while asked and (problem := asked[0][1]):
            yield Answered(asked.popleft()[0].item, problem)

    with closing(ask(sources())) as answers:
        for answer in answers:
            yield from refused()
            item, path = asked.popleft()[0]
            if path and isinstance(answer, Segmentation):
                write_picture(answer.label_map, path, force=force)
                yield Answered(item, answer, path)
            else:
                yield Answered(item, answer.error if isinstance(answer, Rejection) else answer)
    yield from refused()


def _while_served(answers: Generator[Answered, None, None]) -> Generator[Answered, None, None]:
    """Answers until so many in a row are missing that none will come any more: the last one's error ends them."""
    away = 0
    with closing(answers):
        for answered in answers:
            answer = answered.answer
            # Of no kind of its own is that of an audit log that cannot be written.
            away = away + 1 if isinstance(answer, _AWAY) or type(answer) is RadserveError else 0
            if away == _PATIENCE:
                raise cast("RadserveError", answer)
            yield answered


def _record(ask: Ask, jobs: Sequence[_Job], journal: Journal) -> int:
    """Write to a journal what it does not hold yet; the number of failures, those of earlier runs included."""
    by_key = {job.item.key() or f"unreadable {job.item.name}": job for job in jobs}
    left = {key: job for key, job in by_key.items() if key not in journal}
    unanswered = 0
    answering = _while_served(_answers(ask, list(left.values()), force=True))
    try:
        with progress_bar(len(by_key)) as progress, closing(answering) as answers:
            bar = progress.add_task("predicting", total=len(by_key), completed=len(by_key) - len(left))
            for key, (item, answer, label_map) in zip(left, answers, strict=True):
                progress.advance(bar)
                more = {"label_map": str(label_map)} if label_map else {}
                if not journal.write(key, item.name, answer, **more):
                    unanswered += 1
                    told = f"radserve: {item.name}: {type(answer).__name__}: {answer}"
                    progress.console.print(printable(told), highlight=False, soft_wrap=True)
    finally:
        parts = [f"{len(journal) - journal.refused} answered", f"{journal.refused} refused"]
        if len(journal.versions) > 1:
            parts.append(f"by versions {', '.join(map(str, sorted(journal.versions)))}")
        if rest := sum(key not in journal for key in left):
            parts.append(f"{rest} left: run again with --resume")
        before = "" if left else "0 asked, all done before: "
        typer.echo(f"{journal.path}: {before}{', '.join(parts)}")
    return journal.refused + unanswered
