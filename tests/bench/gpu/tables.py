"""From what was measured to Markdown."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.report import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Record = dict[str, Any]

GOAL = 0.9
_HEAD = (
    *("model", "precision", "how", "inputs a request", "in flight", "inputs a second", "of ONNX Runtime's most"),
    *("p50 ms", "p99 ms", "answers", "GPU busy", "GPU memory, MiB"),
)


def page(records: Sequence[Record]) -> str:
    """The whole file.

    Args:
        records: Of ``run.py``: machines, models and layers, in the order in which they were measured.
    """
    of = {kind: [record for record in records if record["kind"] == kind] for kind in ("machine", "model", "layers")}
    lines = ["# Benchmarks on a GPU", "", "Written by `tests/bench/gpu/measure.py`.", ""]
    lines += [f"- {text}" for text in dict.fromkeys(record["text"] for record in of["machine"])]
    for options in dict.fromkeys(record["options"] for record in of["model"]):
        lines += _models([record for record in of["model"] if record["options"] == options], options)
    for record in of["layers"][-1:]:
        lines += _layers(record)
    return "\n".join([*lines, ""])


def _models(records: Sequence[Record], options: str) -> list[str]:
    first = records[0]
    reached = [_best(record) for record in records]
    told = sum(share >= GOAL for share in reached)
    return [
        "",
        f"## Models, {options}",
        "",
        f"Medians of {first['turns']} turns of {first['seconds']:g} s after a first one that does not count;",
        "as many sessions in process as instances behind Triton. The share is the median of each turn's, against",
        "what ONNX Runtime in process answers with its best batch, copies to and from the device included. Latencies",
        "are medians of the turns'; the answers are those of all turns. The client is on the same machine.",
        "",
        *table(_HEAD, [row for record in records for row in _rows(record)]),
        "",
        f"Goal, at saturation {GOAL:.0%} of ONNX Runtime in process: {told} of {len(records)} reach it.",
        "",
        *table(
            ("model", "precision", "at saturation", "largest difference from fp32 on the CPU", "nodes on the device"),
            [
                (f"`{record['model']}`", record["precision"], f"{share:.2f}", record["difference"], record["nodes"])
                for record, share in zip(records, reached, strict=True)
            ],
        ),
    ]


def _rows(record: Record) -> Iterable[tuple[object, ...]]:
    limit = _limit(record)
    for row in record["rows"]:
        rates, shares = row["rates"], [one / most for one, most in zip(row["rates"], limit, strict=True)]
        at_least = "at least " if row["in_flight"] and None in row["p50"] else ""  # the client could do no more
        yield (
            *(f"`{record['model']}`", record["precision"], row["how"], row["batch"], row["in_flight"] or "-"),
            f"{at_least}{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
            f"{median(shares):.2f}",
            *(_number(row["p50"], ".2f"), _number(row["p99"], ".2f"), row["n"] or "-"),
            *(_number(row["busy"], ".0f", " %"), _number(row["memory_mib"], ",.0f")),
        )


def _limit(record: Record) -> list[float]:
    """Of each turn, the rate of ONNX Runtime at the batch that is best by the median."""
    bare: list[list[float]] = [row["rates"] for row in record["rows"] if row["is_limit"]]
    return max(bare, key=median)


def _best(record: Record) -> float:
    """The server's share at saturation."""
    limit = _limit(record)
    served = [row["rates"] for row in record["rows"] if row["in_flight"]]
    return float(max(median(one / most for one, most in zip(rates, limit, strict=True)) for rates in served))


def _number(values: Sequence[float | None], form: str, unit: str = "") -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):{form}}{unit}" if known else "-"


def _layers(record: Record) -> list[str]:
    return [
        "",
        "## Native recurrent operators and loops",
        "",
        f"ONNX Runtime in process, fp32; medians of {record['runs']} runs in turns, in ms. The loop is what tf2onnx",
        "writes without the exporter's help.",
        "",
        *table(
            ("layer", "batch", "exported", "on the device", "loop", "on the device", "ratio"),
            [
                (
                    *(row["layer"], row["batch"], f"{row['native']:.2f}", row["native_nodes"], f"{row['loop']:.2f}"),
                    *(row["loop_nodes"], f"{row['loop'] / row['native']:.1f}"),
                )
                for row in record["rows"]
            ],
        ),
    ]
