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

from radserve import Client, Model, RadserveError
from radserve_export.synthetic import Split, generate
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"

REPORTS = (
    "Large left pneumothorax with mediastinal shift.",
    "No evidence of pneumothorax. Heart size is normal.",
    "左侧大量气胸，纵隔向右移位。",
    "双肺未见气胸，心影不大。",
    "The lungs are clear. " * 120,
)
SHIPPED = (
    ("ecg_rhythm", "pydicom: 12-lead ECG", "waveform_ecg.dcm"),
    ("chest_xray", "pydicom: CT slice", "CT_small.dcm"),
    ("chest_xray", "pydicom: MR slice", "MR_small.dcm"),
    ("chest_xray", "pydicom: segmentation", "liver_1frame.dcm"),
    ("chest_xray", "pydicom: structured report", "reportsi.dcm"),
    ("chest_xray", "pydicom: truncated MR slice", "MR_truncated.dcm"),
    ("chest_xray", "pydicom: radiograph of a spine", "dicomdirtests/77654033/CR1/6154"),
)
OUTCOME = "finding, or why it was refused"
# All shipped files but the ECG, the truncated phantom and the long report.
OUT_OF_SCOPE = len(SHIPPED) - 1 + 2


@dataclass(frozen=True)
class Input:
    """One thing to send: to which model, what it is, and how to get it."""

    model: str
    what: str
    source: Path | bytes | str


def inputs() -> Iterator[Input]:
    """Everything the demo sends."""
    for name, count in (("chest_xray", 6), ("ecg_rhythm", 5)):
        for sample in generate(name, count, seed=7, split=Split.TEST):
            yield Input(name, f"generated: {sample.label}", sample.source)
    cut = next(generate("chest_xray", 1, seed=8, split=Split.TEST)).source
    yield Input("chest_xray", "generated, then truncated", cut[: len(cut) // 2])
    for text in REPORTS:
        yield Input("report_triage", shorten(text, 50, placeholder=" …"), text)
    for model, what, name in SHIPPED:
        path = get_testdata_file(name, download=False)
        if path is None:
            msg = f"pydicom does not ship {name} any more"
            raise FileNotFoundError(msg)
        yield Input(model, what, Path(str(path)))


def describe(item: Input, model: Model) -> tuple[list[str], bool]:
    """One row of the table, and whether the input was answered."""
    began = perf_counter()
    try:
        result = model.predict(item.source)
    except RadserveError as error:
        took = (perf_counter() - began) * 1e3
        return [item.what, f"[yellow]{type(error).__name__}[/]: {error}", "", "", f"{took:.1f}"], False
    took = (perf_counter() - began) * 1e3
    top = result.top
    sign = "positive" if top.is_positive else "indeterminate" if top.is_indeterminate else "negative"
    finding = f"[bold]{top.label}[/] {sign}, {top.code.scheme} {top.code.value}"
    return [item.what, finding, f"{top.probability:.3f}", str(result.version), f"{took:.1f}"], True


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
    answered = refused = 0
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
                row, ok = describe(item, models[item.model])
                table.add_row(*row)
                answered, refused = answered + ok, refused + (not ok)
            uses = {name: model.contract.intended_use for name, model in models.items()}
    finally:
        with phase("stopping Triton"):
            server.stop()
    console.print(table)
    for use in sorted(set(uses.values())):
        console.print(f"[bold]{use}[/]: {', '.join(sorted(name for name in uses if uses[name] == use))}")
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items())
    console.print(f"{answered} answered, {refused} refused. Time: {spent}.")
    return 0 if refused == OUT_OF_SCOPE else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RadserveError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
