"""The main job in one go: serve the reference models, send them real files, show the answers.

Run by ``make demo``. Everything sent is generated or ships with pydicom; no
real patient is in it.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from time import perf_counter
from typing import TYPE_CHECKING

from pydicom.data import get_testdata_file
from rich.console import Console
from rich.table import Column, Table

from radserve import Classification, Client, GeneratedText, Model, RadserveError, Result, Segmentation
from radserve_export.synthetic import Split, generate
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"

CRITICAL, UNCRITICAL = "critical_finding positive", "critical_finding negative"
REPORTS = (
    ("Large left pneumothorax with mediastinal shift.", CRITICAL),
    ("No evidence of pneumothorax. Heart size is normal.", UNCRITICAL),
    ("左侧大量气胸，纵隔向右移位。", CRITICAL),
    ("双肺未见气胸，心影不大。", UNCRITICAL),
    ("The lungs are clear. " * 120, "OutOfScopeError"),
)
GENERATED = (("chest_xray", 6), ("ecg_rhythm", 5), ("ct_hemorrhage", 2), ("brain_mri", 2), ("breast_ultrasound", 2))
SHIPPED = (
    ("ecg_rhythm", "pydicom: 12-lead ECG", "waveform_ecg.dcm", "sinus_rhythm positive"),
    ("chest_xray", "pydicom: CT slice", "CT_small.dcm", "OutOfScopeError"),
    ("chest_xray", "pydicom: MR slice", "MR_small.dcm", "OutOfScopeError"),
    ("chest_xray", "pydicom: segmentation", "liver_1frame.dcm", "OutOfScopeError"),
    ("chest_xray", "pydicom: structured report", "reportsi.dcm", "OutOfScopeError"),
    ("chest_xray", "pydicom: truncated MR slice", "MR_truncated.dcm", "DecodeError"),
    ("chest_xray", "pydicom: radiograph of a spine", "dicomdirtests/77654033/CR1/6154", "OutOfScopeError"),
)
OUTCOME = "finding, or why it was refused"


@dataclass(frozen=True)
class Input:
    """One thing to send: to which model, what it is, how to get it, and what must come of it."""

    model: str
    what: str
    source: Path | bytes | str
    expected: str


def inputs() -> Iterator[Input]:
    """Everything the demo sends."""
    for name, count in GENERATED:
        for sample in generate(name, count, seed=7, split=Split.TEST):
            yield Input(name, f"generated: {sample.label}", sample.source, f"{sample.label} positive")
    for sample in generate("ct_lesion", 2, seed=7, split=Split.TEST):
        found = "liver" if sample.label == "liver" else "liver and liver_lesion"
        yield Input("ct_lesion", f"generated: {sample.label}", sample.source, found)
    for sample in generate("report_impression", 2, seed=7, split=Split.TEST):
        text = " ".join(str(sample.source).split())
        yield Input("report_impression", text, sample.source, str(sample.expected))
    cut = next(generate("chest_xray", 1, seed=8, split=Split.TEST)).source
    yield Input("chest_xray", "generated, then truncated", cut[: len(cut) // 2], "DecodeError")
    for text, expected in REPORTS:
        yield Input("report_triage", shorten(text, 50, placeholder=" …"), text, expected)
    for model, what, name, expected in SHIPPED:
        path = get_testdata_file(name, download=False)
        if path is None:
            msg = f"pydicom does not ship {name} any more"
            raise FileNotFoundError(msg)
        yield Input(model, what, Path(str(path)), expected)


def describe(item: Input, model: Model[Result]) -> tuple[list[str], str]:
    """One row of the table, and what came of the input."""
    began = perf_counter()
    try:
        result = model.predict(item.source)
    except RadserveError as error:
        took = (perf_counter() - began) * 1e3
        return [item.what, f"[yellow]{type(error).__name__}[/]: {error}", "", "", f"{took:.1f}"], type(error).__name__
    took = (perf_counter() - began) * 1e3
    shown, probability, outcome = answer(result)
    return [item.what, shown, probability, str(result.version), f"{took:.1f}"], outcome


def answer(result: Result) -> tuple[str, str, str]:
    """What to show of an answer, its probability, and the answer in short."""
    if isinstance(result, Segmentation):
        regions = [region for region in result.findings if region.is_positive]
        shown = ", ".join(f"[bold]{region.label}[/] {region.extent}" for region in regions)
        return shown, "", " and ".join(region.label for region in regions)
    if isinstance(result, GeneratedText):
        return result.text, "", result.text
    if not isinstance(result, Classification):
        return repr(result), "", ""
    top = result.top
    sign = "positive" if top.is_positive else "indeterminate" if top.is_indeterminate else "negative"
    code = f"{top.code.scheme} {top.code.value}"
    return f"[bold]{top.label}[/] {sign}, {code}", f"{top.probability:.3f}", f"{top.label} {sign}"


def main() -> int:
    """Run the demo; the exit status is 0 if everything was answered or refused as it should be."""
    console = Console()
    times: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        began = perf_counter()
        with console.status(name):
            yield
        times[name] = perf_counter() - began

    table = Table(Column("input", overflow="fold"), Column(OUTCOME, overflow="fold"), "p", "version", "ms")
    surprises: list[str] = []
    shown: set[str] = set()
    server = EmbeddedServer(REPOSITORY)
    try:
        with phase("starting Triton"):
            server.start()
        with phase("generating inputs"):
            todo = list(inputs())
        with phase("sending inputs"), Client(server.grpc_url) as client:
            models = {name: client.model(name) for name in {item.model for item in todo}}
            for item in sorted(todo, key=lambda item: item.model):
                if item.model not in shown:
                    shown.add(item.model)
                    table.add_section()
                    table.add_row(f"[bold cyan]{item.model}[/]", models[item.model].contract.description)
                row, outcome = describe(item, models[item.model])
                table.add_row(*row)
                if outcome != item.expected:
                    surprises.append(f"{item.what}: {outcome} instead of {item.expected}")
            uses = {name: model.contract.intended_use for name, model in models.items()}
    finally:
        with phase("stopping Triton"):
            server.stop()
    console.print(table)
    for use in sorted(set(uses.values())):
        console.print(f"[bold]{use}[/]: {', '.join(sorted(name for name in uses if uses[name] == use))}")
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items())
    refused = sum(item.expected.endswith("Error") for item in todo)
    console.print(f"{len(todo) - refused} to be answered, {refused} to be refused. Time: {spent}.")
    for surprise in surprises:
        console.print(f"[red]not as it should be[/]: {surprise}")
    return 1 if surprises else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RadserveError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
