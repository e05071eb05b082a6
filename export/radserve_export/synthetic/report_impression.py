"""Findings of radiology reports in English and Chinese, and the impression that follows from them.

The impression names each finding that is there, in the order of the report, with
its side, place and size: words and digits that only the report tells. What is
absent, resolved or normal, former sizes, dates and slice thicknesses are left out.
Where nothing is found it says so.

The splits share words and sentences, but no line of an impression: of the
combinations of name, place and size (or grade) one in four is in the test split
alone, so that whoever learned lines by heart fails.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from radserve_export.synthetic import Sample, Split
from radserve_export.synthetic._impression_chinese import CHINESE
from radserve_export.synthetic._impression_english import ENGLISH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve_export.synthetic._impression_grammar import Kind, Language

LABELS: tuple[str, ...] = ()

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_HELD_OUT = 4  # one combination in so many
_FOUND = (0, 1, 1, 2, 2, 3)
_OTHERS = (0, 1, 2, 3)
_SIZES_MM = range(3, 81)


def generate(count: int, *, seed: int, split: Split) -> Iterator[Sample]:
    """Generate reports, every other one in Chinese.

    Args:
        count: How many.
        seed: The same seed yields the same reports.
        split: Which findings at which places to use.

    Yields:
        The findings as source, the impression as what is expected.
    """
    rng = random.Random(f"{split.value} {seed}")  # noqa: S311 - reproducible data, not security
    for number in range(count):
        text, impression = _report(rng, CHINESE if number % 2 else ENGLISH, split)
        yield Sample(source=text, label="", expected=impression)


def _report(rng: random.Random, language: Language, split: Split) -> tuple[str, str]:
    names = [(kind, name) for kind in language.kinds for name in kind.names]
    rng.shuffle(names)
    found = [names.pop() for _ in range(rng.choice(_FOUND))]
    said = [_present(rng, language, kind, name, split) for kind, name in found]
    others = [_other(rng, language, names) for _ in range(rng.choice(_OTHERS) + (not said))]
    order = [True] * len(said) + [False] * len(others)
    rng.shuffle(order)
    conclusions = [conclusion for _, conclusion in said]
    sentences = [said.pop(0)[0] if is_finding else others.pop() for is_finding in order]
    lines = [
        (language.number.format(n=number) if len(conclusions) > 1 else "") + _sentence(conclusion, language)
        for number, conclusion in enumerate(conclusions, 1)
    ]
    text = language.gap.join(_sentence(sentence, language) for sentence in sentences)
    return text, language.gap.join(lines) or language.nothing


def _present(rng: random.Random, language: Language, kind: Kind, name: str, split: Split) -> tuple[str, str]:
    """What the findings say of something that is there, and what the impression does."""
    place = rng.choice(kind.places)
    numbers = range(len(kind.grades)) if kind.grades else _SIZES_MM
    shift = kind.names.index(name) + kind.places.index(place)
    number = rng.choice([n for n in numbers if ((n + shift) % _HELD_OUT == 0) == (split is Split.TEST)])
    extent, other = kind.grades[number] if kind.grades else number, rng.choice(_SIZES_MM)
    filled = {"name": name, "place": place, "grade": extent, "n": extent, "other": other}
    return _choose(rng, kind.sentences).format(**filled), (kind.impression or language.impression).format(**filled)


def _other(rng: random.Random, language: Language, names: list[tuple[Kind, str]]) -> str:
    """A sentence that the impression must leave out; it names nothing that is there."""
    (kind, name), (_, name2) = rng.sample(names, 2)
    templates = rng.choices((language.absent, language.resolved, language.normal), weights=(3, 1, 3))[0]
    return _choose(rng, templates).format(
        name=name, name2=name2, place=rng.choice(kind.places), n=rng.choice(_SIZES_MM)
    )


def _choose(rng: random.Random, templates: tuple[str, ...]) -> str:
    return _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), rng.choice(templates))


def _sentence(text: str, language: Language) -> str:
    return text[0].upper() + text[1:] + language.stop
