"""What else than the server may be why two reports differ, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from radserve.loadtest._judge import FAILED
from radserve.loadtest._words import load_of, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve.loadtest._report import Report, Run


def doubts(which: str, runs: Sequence[Run]) -> list[str]:
    """Why the figures of a report's runs are less than sure."""
    told = []
    for run in runs:
        name = f"the {which} report's run with {load_of(run.plan)}"
        if run.figures is None:
            told.append(f"{name} is left out, it is invalid: {'; '.join(run.invalid or run.notes)}")
            continue
        if state_of(run) != "valid":
            told.append(f"{name} is {state_of(run)}")
        elif not run.is_stable:
            told.append(f"{name} is less sure: its windows do not agree")
        if run.totals.failed > FAILED * run.totals.sent:
            told.append(f"{name} has {run.totals.failed} failures of {run.totals.sent}, which its figures leave out")
    return told


def unlike(before: Report, after: Report) -> list[str]:
    """In what the reports' models, machines and inputs are not the same."""
    unlike = [
        ("model", f"{before.model} {before.version}", f"{after.model} {after.version}"),
        ("contract", before.contract_sha256[:12], after.contract_sha256[:12]),
    ]
    for what, first, second in (("machine", before.machine, after.machine), ("inputs", before.inputs, after.inputs)):
        mine, others = msgspec.to_builtins(first), msgspec.to_builtins(second)
        unlike += [
            (f"{what}: {name.replace('_', ' ')}", mine[name], others[name]) for name in mine if name != "refused"
        ]
    return [f"{what} is not the same: {first}, then {second}" for what, first, second in unlike if first != second]


def unlike_plans(before: Run, after: Run) -> list[str]:
    """In what the runs' plans are not the same."""
    mine, others = msgspec.to_builtins(before.plan), msgspec.to_builtins(after.plan)
    return [
        f"plan: {name.replace('_', ' ')} is not the same: {mine[name]}, then {others[name]}"
        for name in mine
        if mine[name] != others[name]
    ]
