"""The reference in a contract: bounded like the rest of it, and of one piece with the labels."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.sdk_contracts import contract, tensors

from radserve.contracts import Distribution, Reference, Task, dump_contract, parse_contract
from radserve.errors import ContractError

HALVES = Distribution(edges=(0.5,), shares=(0.25, 0.75))
LEVEL = Distribution(edges=(-3.0, 0.0, 12.5), shares=(0.1, 0.2, 0.3, 0.4))
REFERENCE = Reference(n=200, level=LEVEL, scores=(HALVES, HALVES))


def edited(place: str, value: object) -> str:
    tree: dict[str, Any] = json.loads(dump_contract(contract(reference=REFERENCE)))
    *parents, last = place.split(".")
    found: Any = tree["reference"]
    for key in parents:
        found = found[int(key)] if isinstance(found, list) else found[key]
    found[last] = value
    return json.dumps(tree)


def test_survives_the_round_trip() -> None:
    told = contract(reference=REFERENCE)
    assert parse_contract(dump_contract(told)).reference == REFERENCE


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("n", 0, ">= 1"),
        ("level.edges", [0, 0, 1], "must ascend"),
        ("level.edges", [1, 0, 2], "must ascend"),
        ("level.edges", [], "length >= 1"),
        ("level.edges", [0, 1, 1e300], "<= 1000000000"),
        ("level.edges", list(range(65)), "length <= 64"),
        ("level.shares", [0.1, 0.2, 0.7], "one share more"),
        ("level.shares", [0.1, 0.2, 0.3, 0.5], "add up to 1"),
        ("level.shares", [-0.1, 0.4, 0.3, 0.4], ">= 0"),
        ("level.bins", [], "unknown field"),
        ("scores", [], "0 distributions of scores, it gives 2"),
        ("scores.1.shares", [1.5, -0.5], "<= 1"),
    ],
)
def test_a_broken_reference_is_refused(place: str, value: object, why: str) -> None:
    with pytest.raises(ContractError, match=why):
        parse_contract(edited(place, value))


@pytest.mark.parametrize(
    ("edges", "shares"), [((float("nan"),), (0.5, 0.5)), ((float("inf"),), (0.5, 0.5)), ((0.5,), (float("nan"), 0.5))]
)
def test_what_is_no_number_is_refused(edges: tuple[float, ...], shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"must ascend|add up to 1"):
        Distribution(edges=edges, shares=shares)


def test_a_segmentation_has_levels_alone() -> None:
    told = contract(task=Task.IMAGE_SEGMENTATION, reference=Reference(n=200, level=LEVEL))
    assert parse_contract(dump_contract(told)).reference == Reference(n=200, level=LEVEL)
    with pytest.raises(ValueError, match="it gives 0"):
        contract(task=Task.IMAGE_SEGMENTATION, reference=REFERENCE)


def test_tensors_have_no_reference() -> None:
    with pytest.raises(ValueError, match="task tensors has neither"):
        tensors(reference=Reference(n=200, level=LEVEL))
