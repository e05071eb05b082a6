"""Pairwise covers: few cases in which every value of a factor meets every value of every other factor."""

from __future__ import annotations

import random
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Case = dict[str, object]
_CANDIDATES = 20


def pairwise(factors: Mapping[str, Sequence[object]], *, seed: int) -> list[Case]:
    """A small set of cases that covers all pairs of values.

    Greedy, after Cohen et al., "The AETG system", IEEE Trans. Softw. Eng. 23(7), 1997: each case starts with a
    pair not met yet, is filled up value by value with what covers most, and is the best of several tries.

    Args:
        factors: The values of each factor.
        seed: The same seed gives the same cases.
    """
    rng = random.Random(seed)  # noqa: S311 - not a secret
    # An ordered set: what is met first must not depend on hashes.
    missing = dict.fromkeys(pair for one, other in combinations(factors, 2) for pair in _pairs(one, other, factors))
    cases = []
    while missing:
        tries = [_filled(factors, missing, rng) for _ in range(_CANDIDATES)]
        best = max(tries, key=lambda case: sum(pair in missing for pair in pairs_of(case)))
        for pair in pairs_of(best):
            missing.pop(pair, None)
        cases.append({name: best[name] for name in factors})
    return cases


Pair = frozenset[tuple[str, object]]


def pairs_of(case: Case) -> list[Pair]:
    """The pairs of values that a case covers."""
    return [frozenset(pair) for pair in combinations(case.items(), 2)]


def _pairs(one: str, other: str, factors: Mapping[str, Sequence[object]]) -> list[Pair]:
    return [frozenset([(one, a), (other, b)]) for a in factors[one] for b in factors[other]]


def _filled(factors: Mapping[str, Sequence[object]], missing: dict[Pair, None], rng: random.Random) -> Case:
    case: Case = dict(sorted(rng.choice(list(missing)), key=lambda entry: entry[0]))
    rest = [name for name in factors if name not in case]
    rng.shuffle(rest)
    for name in rest:
        values = rng.sample(list(factors[name]), len(factors[name]))
        case[name] = max(
            values, key=lambda value: sum(frozenset([(name, value), met]) in missing for met in case.items())
        )
    return case
