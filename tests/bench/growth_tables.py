"""What the sections on growth have in common: columns, bare ONNX Runtime, what is said before a table."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from bench import limit
from bench.growth_load import SECONDS, TURNS, Turn
from bench.growth_notes import NOTES
from bench.growth_pictures import draw
from bench.report import machine, table, write_section

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.growth_load import Point

HEAD = ("a second", "p50, ms", "p99, ms (n)", "inputs a batch", "queue, ms", "compute, ms")
CPU = ("cores busy (others)", "CPU µs an input: clients", "Triton", "stubs")
BARE = ("bare ONNX Runtime", "ratio")


def figures(point: Point) -> list[str]:
    """The cells under HEAD."""
    return [
        f"{point.rate:,.0f}" if point.rate >= 100 else f"{point.rate:.1f}",
        f"{point.percentile_ms(50):.1f}",
        f"{point.percentile_ms(99):.1f} ({point.n:,})",
        *(f"{point.server(what):.1f}" for what in ("batch", "queue_ms", "compute_ms")),
    ]


def cpu(point: Point, *more: str) -> list[str]:
    """The cells under CPU; further kinds of processes come after the clients."""
    return [
        f"{point.cores:.2f} ({point.others:.2f})",
        *(f"{point.cpu_us(who):,.0f}" for who in ("clients", *more, "server", "stubs")),
    ]


def beside(point: Point, limit: Point) -> list[str]:
    """The cells under BARE."""
    return [f"{limit.rate:,.0f}" if limit.rate >= 100 else f"{limit.rate:.1f}", point.against(limit)]


def latencies(points: Sequence[Point]) -> dict[str, list[float]]:
    """Series of a picture."""
    return {f"p{percent}": [one.percentile_ms(percent) for one in points] for percent in (50, 99)}


def bare(folder: Path, name: str, *, rows: int = 1, seconds: float = SECONDS) -> Callable[[], Turn]:
    """What bare ONNX Runtime answers, in half the time."""
    run = limit.bare(folder / "models" / f"{name}_pipeline" / "1" / "model.onnx", rows, seconds / 2)
    return lambda: Turn(rate=run())


def write(
    part: str,
    what: str,
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    x: tuple[str, Sequence[float]],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    turns: int = TURNS,
) -> None:
    """Write a section with its picture.

    Args:
        part: What grows.
        what: What was measured, in sentences.
        head: Of the table.
        rows: Of the table.
        x: Label and values of the picture's horizontal axis.
        panels: See ``draw``.
        turns: How often each row was measured.
    """
    how = (
        f"Clients, server and stubs share the cores. Medians of {turns} turns of {SECONDS:g} s or more; percentiles are"
        " of all turns' answers together, n of them. Batch, queue and compute are Triton's statistics of the network,"
        " CPU is the kernel's count, in brackets of what else ran on the machine."
    )
    paragraphs = [wrap(f"{machine()} {what} {how}", 118), wrap(NOTES[part], 118)]
    paragraphs += [[draw(part.replace(" ", "_"), *x, panels)], table(head, rows)]
    write_section(f"How cost grows: {part}", [line for one in paragraphs for line in [*one, ""]][:-1])
