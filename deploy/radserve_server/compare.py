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

    from radserve import Rejection
    from radserve.contracts import Contract
    from radserve.results import Result


@dataclass(frozen=True)
class Comparison:
    """How the answers of two releases differ.

    Attributes:
        inputs: How many were asked about.
        changed: Of how many the decisions or texts differ, or only one release answered.
        unanswered: How many neither release answered.
        largest_difference: Of two probabilities of one label.
        versions: Of the models that answered: those of the first release, those of the second.
    """

    inputs: int
    changed: int
    unanswered: int
    largest_difference: float
    versions: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def share_changed(self) -> float:
        """Of all inputs; 1 where none was answered, which shows nothing."""
        return self.changed / self.inputs if self.inputs > self.unanswered else 1.0


def compare(pairs: Iterable[tuple[Result | Rejection, Result | Rejection]]) -> Comparison:
    """Compare answers pair by pair: that of the release in use, that of the candidate."""
    inputs = changed = unanswered = 0
    largest = 0.0
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
        changed += _decided(live) != _decided(candidate)
        before, after = _probabilities(live), _probabilities(candidate)
        largest = max([largest, *(abs(before[label] - after[label]) for label in before.keys() & after.keys())])
    first, second = (tuple(sorted(seen)) for seen in versions)
    return Comparison(inputs, changed, unanswered, largest, (first, second))


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
        for name, inputs in sets.items():
            answers = (client.model(name).predict_many(inputs) for client in (first, second))
            found = compare(zip(*answers, strict=True))
            passed &= found.share_changed <= allow_changed
            typer.echo(json.dumps({"model": name, "share_changed": found.share_changed, **asdict(found)}))
    if lost is not None:
        passed = False
        advice = "render the gateways with another canary and apply them first, then name it here with --canary"
        typer.echo(f"the gateways' canary asks {lost}, and the candidate would not answer it: {advice}", err=True)
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(main)
