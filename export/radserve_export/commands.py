"""The commands ``radserve export``, ``radserve check`` and ``radserve train``.

Whatever is slow to import is imported inside: the command line loads this
module to show its help.
"""

from __future__ import annotations

import logging
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radserve_export.sandbox.limits import DEFAULT_LIMITS, Limits
from radserve_export.sandbox.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import Console

    from radserve_export.from_keras.training import Progress
    from radserve_export.pipeline import Exported

_INTERRUPTED = 130
_LONGEST_LINE = 4000
_Model = Annotated[Path | None, typer.Option(help="Another model file than the spec's; for one spec.")]
_Custom = Annotated[
    list[str] | None,
    typer.Option(metavar="MODULE:NAME", help="A class or function of yours that the model may name; repeatable."),
]
_Trust = Annotated[
    bool, typer.Option("--trust", help="Take an HDF5 file, and a system that cannot cut the model off the network.")
]
_Memory = Annotated[float, typer.Option(min=1, help="Memory that loading and running the model may take.")]
_Time = Annotated[float, typer.Option(min=1, help="Time for converting the model, and for each batch it answers.")]
_Skip = Annotated[bool, typer.Option("--skip-evaluation", help="Do not measure accuracy through the whole path.")]


def export(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC.yaml...", help="Export specs.")],
    *,
    model: _Model = None,
    repository: Annotated[Path, typer.Option(help="Folder of the model repository.")] = Path("model_repository"),
    skip_evaluation: _Skip = False,
    trust: _Trust = False,
    custom_objects: _Custom = None,
    memory_limit_gib: _Memory = DEFAULT_LIMITS.memory_gib,
    time_limit_s: _Time = DEFAULT_LIMITS.time_s,
) -> None:
    """Export trained Keras models to a Triton model repository.

    Nothing of a model is written unless everything about it succeeded. Where
    one of several fails, the others are exported all the same.

    Example: radserve export export/specs/chest_xray.yaml --repository model_repository
    """
    with one_line_errors() as messages:
        from radserve.errors import ExportError, RadserveError, SpecError  # noqa: PLC0415 - slow
        from radserve_export.pipeline import export as run  # noqa: PLC0415 - slow

        if model is not None and len(specs) > 1:
            msg = "--model belongs to one spec: export the specs one by one"
            raise SpecError(msg)
        from radserve_export.evaluate import evaluate  # noqa: PLC0415 - slow

        loading: dict[str, Any] = {
            "trust": trust,
            "custom_objects": custom_objects or (),
            "limits": Limits(memory_gib=memory_limit_gib, time_s=time_limit_s),
        }
        measure = None if skip_evaluation else evaluate
        failed: list[str] = []
        for spec in specs:
            began = time.monotonic()
            try:
                with _warnings_shown(messages), _stages(messages, spec.stem) as progress:
                    done = run(spec, repository, model=model, evaluate=measure, progress=progress, **loading)
            except (RadserveError, OSError) as error:
                if len(specs) == 1:
                    raise
                _show_error(messages, error if str(spec) in str(error) else f"{spec}: {error}")
                failed.append(str(spec))
            else:
                _report(done, repository, time.monotonic() - began)
        if failed:
            msg = f"{len(failed)} of {len(specs)} specs were not exported: {', '.join(failed)}"
            raise ExportError(msg)


def check(
    repository: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the model repository.")],
    *,
    backend: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What the server has beside Triton's own; repeatable.")
    ] = None,
    manifests: Annotated[
        bool, typer.Option("--manifests", help="Only compare the files with their manifests: needs no extra.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a model repository without a server; exit code 1 if anything is wrong.

    Example: radserve check model_repository
    """
    import json  # noqa: PLC0415 - with the rest
    from dataclasses import asdict  # noqa: PLC0415 - with the rest

    if manifests:
        _check_manifests(repository)
        return
    with one_line_errors():
        from radserve_export.check import check_repository  # noqa: PLC0415 - slow

        findings = check_repository(repository, backend or ())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(f"{finding.file}:{finding.line}: {finding.message}")
        typer.echo(f"{len(findings)} problems in {repository}" if findings else f"{repository}: nothing wrong")
    if findings:
        raise typer.Exit(1)


def _check_manifests(repository: Path) -> None:
    """What a server verifies before it serves; a model without a manifest is none of radserve's."""
    from radserve.contracts.manifest import latest_manifests, verify_repository  # noqa: PLC0415 - with the rest

    published = latest_manifests(repository) if repository.is_dir() else []
    problems = verify_repository(repository) if published else [f"{repository} holds no published model"]
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{repository}: {len(published)} models as they were published")


def train(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="Export spec of a reference model.")],
    *,
    data: Annotated[Path | None, typer.Option(help="A MedMNIST .npz instead of generated data.")] = None,
    data_folder: Annotated[Path | None, typer.Option(help="A folder of DICOM files instead.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV of labels for the folder.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write; default: the spec's model.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file that is there.")] = False,
) -> None:
    """Train a reference model, on generated data or your own.

    The accuracy on your own data is measured on what the data set keeps apart
    for testing, or else on a fifth of it that is held out of the training.

    Example: radserve train export/specs/chest_xray.yaml --data pneumoniamnist.npz --output mine.keras
    """
    with one_line_errors() as messages:
        from radserve.errors import SpecError  # noqa: PLC0415 - slow

        if data is not None and data_folder is not None:
            msg = "give --data or --data-folder, not both"
            raise SpecError(msg)
        if (data_folder is None) != (labels is None):
            msg = "--data-folder and --labels belong together"
            raise SpecError(msg)
        with _progress(messages) as progress:
            progress("loading TensorFlow", 0, 1)
            from radserve_export.from_keras.training import train_model  # noqa: PLC0415 - slow

            progress("loading TensorFlow", 1, 1)
            trained = train_model(spec, output, data or data_folder, labels, progress, force=force)
    typer.echo(f"{trained.path}: {trained.size_bytes / 2**20:.1f} MiB, trained in {trained.duration_s:.0f} s")
    if trained.accuracy is not None:
        typer.echo(f"accuracy {trained.accuracy:.3f} on {trained.measured} samples that were not trained on")
    elif data is not None or data_folder is not None:
        typer.echo("accuracy not measured: no label has enough samples to hold any out")


@contextmanager
def one_line_errors() -> Iterator[Console]:
    """Turn errors and Ctrl-C into one line and an exit code."""
    from rich.console import Console  # noqa: PLC0415 - slow

    from radserve.errors import RadserveError, installing  # noqa: PLC0415 - slow

    messages = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    # A shell starts background jobs with Ctrl-C ignored; whoever sends it to this process means it.
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield messages
    except RadserveError as error:
        _show_error(messages, error)
        raise typer.Exit(1) from error
    except ImportError as error:
        _show_error(messages, f"{error.name} is missing: {installing('export')}")
        raise typer.Exit(1) from error
    except BrokenPipeError:  # whoever read the output wants no more
        raise
    except OSError as error:
        _show_error(messages, error)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        messages.print("interrupted; what was not reported as finished was not written")
        raise typer.Exit(_INTERRUPTED) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_error(console: Console, error: object) -> None:
    console.print(one_line(f"radserve: {error}", _LONGEST_LINE), style="red", markup=False)


@contextmanager
def _warnings_shown(console: Console) -> Iterator[None]:
    """Show what the exporter logs, a line each."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = one_line(f"radserve: {record.getMessage()}", _LONGEST_LINE)
            console.print(line, style="yellow", markup=False)

    log, handler = logging.getLogger("radserve_export"), Shown(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextmanager
def _stages(console: Console, name: str) -> Iterator[Callable[[str], None]]:
    """Show the stage at work, and how long each took."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - slow

    columns = (SpinnerColumn(), TextColumn("{task.fields[model]}: {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:

        def begin(stage: str) -> None:
            for task in shown.tasks:
                shown.update(task.id, total=1, completed=1)
            shown.add_task(stage, total=None, model=name)

        yield begin
        for task in shown.tasks:
            shown.update(task.id, total=1, completed=1)


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    from rich import progress  # noqa: PLC0415 - slow

    with progress.Progress(console=console, disable=not console.is_terminal) as shown:
        tasks: dict[str, progress.TaskID] = {}

        def update(description: str, done: int, total: int) -> None:
            if description not in tasks:
                tasks[description] = shown.add_task(description, total=total)
            shown.update(tasks[description], completed=done, total=total)

        yield update


def _report(done: Exported, repository: Path, took_s: float) -> None:
    what = "published as" if done.is_new else "unchanged, still"
    worst = max((output["max_abs"] for output in done.parity["outputs"].values()), default=0.0)
    typer.echo(
        f"{done.name}: {what} version {done.version} in {repository}"
        f" ({took_s:.1f} s, largest difference from Keras {worst:.1e})"
    )
    _report_parity(done)
    for note in done.notes:
        typer.echo(f"{done.name}: {note}")
    if done.is_new and done.version > 1:
        typer.echo(f"running servers go on with the version before until: radserve publish {done.name} --url ...")
    if done.evaluation is not None:
        _print_evaluation(done.evaluation)
    if done.evidence is not None:
        _report_evidence(done.evidence)


def _report_parity(done: Exported) -> None:
    from radserve_export.graphs import NETWORK_INPUT  # noqa: PLC0415 - slow

    parity = done.parity
    inputs = [
        f"{'the network' if name == NETWORK_INPUT else name} from {low:.3g} to {high:.3g}"
        for name, (low, high) in parity["inputs"].items()
    ]
    real = f" and {parity['real_inputs']} real inputs" if parity["real_inputs"] else ""
    batches = ", ".join(map(str, parity["batch_sizes"]))
    typer.echo(f"{done.name}: compared on random batches of {batches}{real}: {', '.join(inputs)}")
    for note in parity["notes"]:
        typer.echo(f"{done.name}: note: {note}")
    if "not_measured" in parity:
        typer.echo(f"{done.name}: not measured: {parity['not_measured']}")


def _report_evidence(done: Exported) -> None:
    what = "published as" if done.is_new else "unchanged, still"
    found = (done.evaluation or {}).get("evidence")
    share = f": the maps' maximum lies in the lesion in {found['in_lesion']:.1%} of {found['n']}" if found else ""
    typer.echo(f"{done.name}: {what} version {done.version}{share}")
    _report_parity(done)


def _print_evaluation(found: Mapping[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow
    from rich.table import Table  # noqa: PLC0415 - slow

    metric = found.get("metric", "accuracy")  # older manifests do not name it
    title = f"{metric} {found[metric]:.3f} on {found['n']} fresh samples through the whole path"
    caption = f"largest skew {found['skew']['max']:.1e} on {found['skew']['n']}"
    if "labels" not in found:
        typer.echo(f"{title}, {caption}")
        return
    table = Table(title=title, caption=caption)
    table.add_column("", overflow="fold")
    if "confusion" in found:
        table.caption = f"rows: the truth; {table.caption}"
        columns, rows = found["labels"], [tuple(map(str, counts)) for counts in found["confusion"]]
    else:
        columns = ["Dice", "images"]
        measured = zip(found["dice_by_label"], found["n_by_label"], strict=True)
        rows = [("" if dice is None else f"{dice:.3f}", str(count)) for dice, count in measured]
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for label, cells in zip(found["labels"], rows, strict=True):
        table.add_row(label, *cells)
    Console().print(table)
