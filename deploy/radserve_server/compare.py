"""Compare a release that is to be served with the one that is, on a reference set.

The Job ``compare`` of ``deploy/kubernetes/release`` runs it beside a Triton that
serves the candidate to nobody else: ``python -m radserve_server.compare``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from radserve import Rejection
    from radserve.contracts import Contract
    from radserve.results import Result

_MIN_OVERLAP = 0.95  # what processors and GPUs round differently moves a few pixels of an outline


@dataclass(frozen=True)
class Comparison:
    """How the answers of two releases differ.

    Attributes:
        inputs: How many were asked about.
        changed: Of how many decisions, texts or outlines differ, or only one release answered.
        unanswered: How many neither release answered.
        largest_difference: Of two probabilities of one label.
        versions: Of the models that answered: those of the first release, those of the second.
        lowest_overlap: Of two outlines of one label, by Dice's coefficient; 1 where none was drawn.
    """

    inputs: int
    changed: int
    unanswered: int
    largest_difference: float
    versions: tuple[tuple[str, ...], tuple[str, ...]]
    lowest_overlap: float = 1.0

    @property
    def share_changed(self) -> float:
        """Of all inputs; 1 where none was answered, which shows nothing."""
        return self.changed / self.inputs if self.inputs > self.unanswered else 1.0


def compare(
    pairs: Iterable[tuple[Result | Rejection, Result | Rejection]], min_overlap: float = _MIN_OVERLAP
) -> Comparison:
    """Compare answers pair by pair: that of the release in use, that of the candidate.

    Args:
        pairs: Of both releases.
        min_overlap: Below this Dice coefficient of two outlines of one label an answer has changed.
    """
    inputs = changed = unanswered = 0
    largest, lowest = 0.0, 1.0
    versions: tuple[set[str], set[str]] = (set(), set())
    for pair in pairs:
        inputs += 1
        live, candidate = (_told(answer) for answer in pair)
        for told, seen in zip((live, candidate), versions, strict=True):
            seen.update(() if told is None else {str(told["version"])})
        if live is None or candidate is None:
            unanswered += live is candidate
            changed += live is not candidate
            continue
        overlap = _overlap(*pair)
        lowest = min(lowest, overlap)
        changed += _decided(live) != _decided(candidate) or overlap < min_overlap
        before, after = _probabilities(live), _probabilities(candidate)
        largest = max([largest, *(abs(before[label] - after[label]) for label in before.keys() & after.keys())])
    first, second = (tuple(sorted(seen)) for seen in versions)
    return Comparison(inputs, changed, unanswered, largest, (first, second), lowest)


def _told(answer: Result | Rejection) -> dict[str, Any] | None:
    from radserve import Rejection  # noqa: PLC0415 - slow to import

    return None if isinstance(answer, Rejection) else answer.to_dict()


def _decided(told: Mapping[str, Any]) -> object:
    """What a reader would act on: decisions by label, or the text."""
    findings = told.get("findings", ())
    decisions = {one["label"]: (one["is_positive"], one.get("is_indeterminate")) for one in findings}
    return decisions, told.get("text")


def _probabilities(told: Mapping[str, Any]) -> dict[str, float]:
    return {one["label"]: one["probability"] for one in told.get("findings", ()) if "probability" in one}


def _overlap(before: Result | Rejection, after: Result | Rejection) -> float:
    """Dice's coefficient (Dice, Ecology 1945) of the outlines that differ most; 1 of answers without any."""
    from radserve.results import Segmentation  # noqa: PLC0415 - slow to import

    if not (isinstance(before, Segmentation) and isinstance(after, Segmentation)):
        return 1.0
    if before.label_map.shape != after.label_map.shape:
        return 0.0
    drawn = [{one.label: answer.label_map == one.value for one in answer.findings} for answer in (before, after)]
    first, second = drawn
    return min((_dice(first[label], second[label]) for label in first.keys() & second.keys()), default=1.0)


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    pixels = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / pixels if pixels else 1.0


def unasked(live: Iterable[Contract], candidate: Iterable[Contract], asked: Iterable[str]) -> list[str]:
    """Models of the release in use that the candidate has no more, or has changed and no reference input asks."""
    coming, known = {contract.name: contract for contract in candidate}, set(asked)
    changed = (contract.name for contract in live if coming.get(contract.name) != contract)
    return sorted(name for name in changed if name not in coming or name not in known)


def lost_canary(live: Iterable[Contract], candidate: Iterable[Contract], model: str | None = None) -> str | None:
    """Which model the gateways ask as their canary and could not ask the candidate for; None where they could.

    Args:
        live: Of the public models of the release in use.
        candidate: Of those of the candidate.
        model: Whose canary it is; None is whose it is by default.

    Raises:
        InputError: The release in use has no such model.
    """
    from radserve_server.gateway import canary_among  # noqa: PLC0415 - seldom needed

    asked = canary_among(live, model)
    if asked is None:
        msg = f"the release in use has no public model {model or ''}".rstrip()
        raise InputError(msg)
    return None if asked == canary_among(candidate, asked.model) else asked.model


def main(
    references: Annotated[Path, typer.Argument(help="Folder with a folder of inputs for each model, by its name.")],
    *,
    live: Annotated[str, typer.Option(metavar="HOST:PORT", help="Serves the release in use.")],
    candidate: Annotated[str, typer.Option(metavar="HOST:PORT", help="Serves the one to come.")],
    allow_changed: Annotated[float, typer.Option(min=0, max=1, help="Share of inputs whose answer may change.")] = 0.0,
    min_overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Dice coefficient below which an outline has changed.")
    ] = _MIN_OVERLAP,
    canary: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Whom the gateways ask, if they were told: radserve gateway.")
    ] = None,
) -> None:
    """Ask both releases about a reference set; exit status 1 where too many answers changed, or gateways must."""
    from radserve import Client  # noqa: PLC0415 - slow to import
    from radserve.options import ClientOptions  # noqa: PLC0415 - with the rest

    sets = {folder.name: sorted(folder.iterdir()) for folder in sorted(references.iterdir()) if folder.is_dir()}
    if not any(sets.values()):
        msg = f"{references} holds no inputs: put those of model NAME into the folder NAME there"
        raise InputError(msg)
    passed = True
    with (
        Client(options=ClientOptions.load(endpoints=live)) as first,
        Client(options=ClientOptions.load(endpoints=candidate)) as second,
    ):
        before, after = ([model.contract for model in client.models()] for client in (first, second))
        lost = lost_canary(before, after, canary)
        left_out = unasked(before, after, [name for name, inputs in sets.items() if inputs])
        old, new = ({contract.name for contract in contracts} for contracts in (before, after))
        for name, inputs in sets.items():
            if name not in old & new:
                is_known = name in old | new
                passed &= is_known
                where = "one release alone: nothing to compare" if is_known else "no release: mend the folder's name"
                typer.echo(f"{name} is in {where}", err=True)
                continue
            answers = (client.model(name).predict_many(inputs) for client in (first, second))
            found = compare(zip(*answers, strict=True), min_overlap)
            passed &= found.share_changed <= allow_changed
            typer.echo(json.dumps({"model": name, "share_changed": found.share_changed, **asdict(found)}))
    if left_out:
        passed = False
        advice = f"put inputs of each into {references}, or keep those that are gone"
        typer.echo(f"changed or gone, and not compared: {', '.join(left_out)}; {advice}", err=True)
    if lost is not None:
        passed = False
        advice = "render the gateways with another canary and apply them first, then name it here with --canary"
        typer.echo(f"the gateways' canary asks {lost}, and the candidate would not answer it: {advice}", err=True)
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(main)
