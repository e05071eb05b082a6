"""The section of tests/bench/results.md."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.peers.catalogue import PEERS
from bench.peers.environments import versions
from bench.peers.stage import COALESCE, GRPC, HTTP, LIMIT_ROWS, SHARED, WITHOUT_QUEUE, Cell, Findings
from bench.report import machine, table, write_section

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CELLS: dict[str, Cell] = {
    "8 in flight, 1 a request": ("chest_xray", 1, 8),
    "32 in flight, 1 a request": ("chest_xray", 1, 32),
    "8 in flight, 16 a request": ("chest_xray", 16, 8),
    "32 in flight, 16 a request": ("chest_xray", 16, 32),
    "DenseNet121, 4 in flight": ("densenet", 1, 4),
}
_OURS = (GRPC, HTTP, SHARED, WITHOUT_QUEUE)


def _cell(turns: Sequence[tuple[float, float]] | None) -> str:
    if not turns:
        return "-"
    rates, ratios = [rate for rate, _ in turns], [rate / limit for rate, limit in turns]
    rate = median(rates)
    return f"{rate:,.{0 if rate > 100 else 1}f}<br>{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _rows(found: Findings, titles: Iterable[str], cells: Sequence[Cell]) -> list[list[str]]:
    return [[row, *[_cell(found.rates.get((row, cell))) for cell in cells]] for row in titles]


def _compared(found: Findings, row: str, other: str, cell: Cell) -> str | None:
    """How two rows' ratios to the limit compare, turn by turn; None if one is missing or lacks turns."""
    ours, theirs = found.rates.get((row, cell), []), found.rates.get((other, cell), [])
    if not ours or len(ours) != len(theirs):
        return None
    ratios = [
        rate / limit / (other_rate / other_limit)
        for (rate, limit), (other_rate, other_limit) in zip(ours, theirs, strict=True)
    ]
    how = f"{cell[2]} in flight, {cell[1]} a request"
    return f"- {row} against {other}, {how}: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _limits(found: Findings, model: str) -> str:
    limits = [limit for (_, cell), turns in found.rates.items() if cell[0] == model for _, limit in turns]
    return f"{median(limits):,.{0 if median(limits) > 100 else 1}f}" if limits else "-"


def report(found: Findings, rounds: int, seconds: float) -> None:
    """Write it."""
    servers = [*_OURS, *[peer.title for peer in PEERS.values()]]
    measured = [row for row in servers if any(title == row for title, _ in found.rates)]
    lines = [
        f"{machine()} Inputs a second, and below the ratio to bare ONNX Runtime, 2 sessions of 1 thread,",
        f"in the turns right before and after: medians of {rounds} turns of {seconds:g} s, with extremes.",
        (
            f"That limit's median: {_limits(found, 'chest_xray')} of `chest_xray`, {LIMIT_ROWS['chest_xray']} a run,"
            f" and {_limits(found, 'densenet')} of DenseNet121. Two client"
        ),
        "processes on the servers' own cores send requests that were written out beforehand, over HTTP and gRPC alike,",
        "and parse no answer. Every server's answers were compared with bare ONNX Runtime's first. Memory is that of",
        "all its processes after the load, what they share counted once, with `chest_xray` and with DenseNet121.",
        "",
        *table(
            ("server", *CELLS, "MiB"),
            [[*cells, _memory(found, cells[0])] for cells in _rows(found, measured, list(CELLS.values()))],
        ),
    ]
    if found.reasons:
        lines += ["", "Not measured:", "", *[f"- {row}: {reason}" for row, reason in found.reasons.items()]]
    single, many = CELLS["32 in flight, 1 a request"], CELLS["32 in flight, 16 a request"]
    if calls := [row for row in COALESCE if (row, single) in found.rates]:
        beside = [row for row in (PEERS["asgi"].title, GRPC) if (row, single) in found.rates]
        lines += [
            "",
            "32 coroutines of one process that each ask for one prediction after the other, in the same turns:",
            "",
            *table(("caller", "a second"), _rows(found, [*calls, *beside], [single])),
        ]
    pairs = [(row, PEERS["fastapi"].title, many) for row in (SHARED, GRPC, WITHOUT_QUEUE)]
    pairs += [(row, PEERS["asgi"].title, single) for row in COALESCE]
    compared = [text for pair in pairs if (text := _compared(found, *pair))]
    if compared:
        lines += ["", "Of the same turns:", "", *compared]
    lines += ["", "What was chosen for each:", ""]
    lines += [
        f"- {peer.title}: {versions(peer.name, (*peer.packages, 'onnxruntime', 'numpy'))}; {peer.settings}."
        for peer in PEERS.values()
        if peer.title in measured
    ]
    write_section("Peers", lines)


def _memory(found: Findings, row: str) -> str:
    server = GRPC if row in (HTTP, SHARED) else row
    values = [found.memory_mib.get((server, model)) for model in LIMIT_ROWS]
    return " / ".join("-" if value is None else f"{value:,.0f}" for value in values) if server == row else "same"
