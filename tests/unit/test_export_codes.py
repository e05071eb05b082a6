"""The codes of the reference models mean what their specs say: a code list may give one code two meanings."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydicom.sr import _concepts_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

SPECS = sorted((Path(__file__).resolve().parents[2] / "export/specs").glob("*.yaml"))
# What pydicom's dictionary calls them, and what the specs do, one and the same.
SYNONYMS = {
    "tumor": "neoplasm",
    "liver structure": "liver",
    "lesion with circumscribed margin": "circumscribed lesion",
    "lesion with spiculated margin": "spiculated lesion",
}


def codes(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if {"value", "scheme", "meaning"} <= part.keys():
            yield part
        for each in part.values():
            yield from codes(each)
    elif isinstance(part, list):
        for each in part:
            yield from codes(each)


def plain(meaning: str) -> str:
    """Without case, and without the tag of a fully specified name, such as ``(disorder)``."""
    name = re.sub(r" \([a-z ]+\)$", "", meaning.casefold())
    return SYNONYMS.get(name, name)


@pytest.fixture(scope="module")
def meanings() -> dict[tuple[str, str], set[str]]:
    """All that pydicom's dictionary says of a code, in whichever context group."""
    concepts: dict[str, Any] = _concepts_dict.concepts
    found = defaultdict(set)
    for scheme, by_keyword in concepts.items():
        for by_value in by_keyword.values():
            for value, (meaning, _) in by_value.items():
                found[scheme, value].add(plain(meaning))
    return found


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_no_code_has_another_meaning_elsewhere(spec: Path, meanings: dict[tuple[str, str], set[str]]) -> None:
    others = {
        code["value"]: meanings.get((code["scheme"], str(code["value"])), set()) - {plain(code["meaning"])}
        for code in codes(yaml.safe_load(spec.read_text()))
    }
    assert {value: other for value, other in others.items() if other} == {}


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_every_code_says_where_it_was_read(spec: Path) -> None:
    assert [code["value"] for code in codes(yaml.safe_load(spec.read_text())) if not code.get("source")] == []
