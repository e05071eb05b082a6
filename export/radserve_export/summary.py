"""The repository's README: what its models are and how well they did, from their manifests alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radserve.contracts.manifest import latest_manifests, read_manifest
from radserve.errors import RepositoryError

if TYPE_CHECKING:
    from radserve.contracts.manifest import Manifest

SUMMARY_FILE = "README.md"
_BLOCK = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.DOTALL)
_HEAD = """# Model repository

Written by `radserve export` from the models' manifests; do not edit.

Accuracy, and skew (served answers against Keras on the same files), are measured through the whole path. Parity is
the largest difference between the exported graphs and Keras on the inputs named beside it; the bounds of each output
are in the version's `manifest.json`. What is missing or empty was not measured.
"""
_COLUMNS = ("model", "version", "accuracy", "samples", "largest skew", "parity", "compared on", "steps")


def summarise(repository: Path) -> bytes:
    """Text of the repository's README.

    Args:
        repository: The model repository.

    Raises:
        RepositoryError: A manifest is malformed.
    """
    try:
        manifests = [read_manifest(path) for path in latest_manifests(repository)]
    except (OSError, ValueError) as error:
        msg = f"{repository}: {error}"
        raise RepositoryError(msg) from error
    parts = [_HEAD, _table([_row(manifest) for manifest in manifests])]
    parts += [_details(m.name, m.evaluation) for m in manifests if m.evaluation and "labels" in m.evaluation]
    return "\n".join(parts).encode()


def _table(rows: list[tuple[str, ...]]) -> str:
    """All columns that any model fills."""
    kept = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *rows]
    return "".join(f"| {' | '.join(line[place] for place in kept)} |\n" for line in lines)


def _row(manifest: Manifest) -> tuple[str, ...]:
    found = manifest.evaluation
    reached = samples = skew = ""
    if found:
        metric = found.get("metric", "accuracy")
        reached = f"{found[metric]:.3f}" + ("" if metric == "accuracy" else f" ({metric})")
        samples, skew = str(found["n"]), f"{found['skew']['max']:.1e}"
    outputs = manifest.parity.get("outputs")
    parity = f"{max(output['max_abs'] for output in outputs.values()):.1e}" if outputs else ""
    steps = ", ".join(f"`{name}`" for name in manifest.models[1:])
    compared = _compared_on(manifest.parity)
    return f"`{manifest.name}`", str(manifest.version), reached, samples, skew, parity, compared, steps


def _compared_on(parity: dict[str, Any]) -> str:
    """Which inputs the parity gate saw."""
    told = {
        "random batches of ": ", ".join(map(str, parity.get("batch_sizes", ()))),
        "lengths ": ", ".join(map(str, parity.get("lengths", ()))),
        "real inputs: ": str(parity.get("real_inputs") or ""),
        "not measured: ": parity.get("not_measured", ""),
    }
    return "; ".join(f"{what}{values}" for what, values in told.items() if values)


def _details(name: str, evaluation: dict[str, Any]) -> str:
    head = f"## `{name}`: {evaluation['n']} fresh generated samples, seed {evaluation['seed']}"
    rows = _dice(evaluation) if "dice_by_label" in evaluation else _confusion(evaluation)
    return "\n".join([head, "", *rows]) + "\n"


def _confusion(evaluation: dict[str, Any]) -> list[str]:
    labels = evaluation["labels"]
    counted = zip(labels, evaluation["confusion"], strict=True)
    return [
        "Rows are what the sample is, columns what the served model answered.",
        "",
        f"| | {' | '.join(labels)} |",
        f"|---|{'---|' * len(labels)}",
        *(f"| **{label}** | {' | '.join(map(str, counts))} |" for label, counts in counted),
    ]


def _dice(evaluation: dict[str, Any]) -> list[str]:
    measured = zip(evaluation["labels"], evaluation["dice_by_label"], evaluation["n_by_label"], strict=True)
    return [
        "Mean Dice coefficient over the images that show the label, or were said to.",
        "",
        "| | Dice | images |",
        "|---|---|---|",
        *(f"| **{label}** | {'' if dice is None else f'{dice:.3f}'} | {count} |" for label, dice, count in measured),
    ]


def embed(summary: str, text: str) -> str:
    """Put a summary's tables between the ``results`` comments of another text.

    Args:
        summary: What ``summarise`` made.
        text: For example the project's README.
    """
    tables = summary.removeprefix(_HEAD).strip().replace("\n## ", "\n### ")
    return _BLOCK.sub(lambda _: f"\n{tables}\n\n", text)


if __name__ == "__main__":
    target, repository = map(Path, sys.argv[1:])
    made = summarise(repository)
    (repository / SUMMARY_FILE).write_bytes(made)
    target.write_text(embed(made.decode(), target.read_text(encoding="utf-8")), encoding="utf-8")
