"""What a spec's fields are, in words: for errors, and for the reference in ``export/specs/README.md``."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import inspect

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAID = re.compile(r"(?P<said>.*?)(?: - at `\$\.?(?P<place>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_STEP = re.compile(r"(\w+)|\[(\d+|\.\.\.)\]")
PATTERNS = {
    r"^[a-z][a-z0-9_]*\Z": "small letters, digits and _, a letter first",
    "^[a-z]{2}$": "two small letters (ISO 639-1, such as en)",
}


class Found(NamedTuple):
    """A block of a spec.

    Attributes:
        path: Where it is first, such as ``serving.queue``; empty for the spec itself.
        type: What msgspec knows of it.
    """

    path: str
    type: inspect.StructType


def blocks(spec: type) -> list[Found]:
    """All blocks that a spec can have, each once, the spec itself first."""
    found: dict[type, Found] = {}
    for path, block in _walk(inspect.type_info(spec), ""):
        found.setdefault(block.cls, Found(path, block))
    return list(found.values())


def _walk(kind: inspect.Type, path: str) -> Iterator[tuple[str, inspect.StructType]]:
    for block in structs(kind):
        yield path, block
        for field in block.fields:
            yield from _walk(field.type, f"{path}.{field.encode_name}".lstrip("."))


def structs(kind: inspect.Type) -> Iterator[inspect.StructType]:
    """The blocks that a field may hold, those in lists and mappings too."""
    if isinstance(kind, inspect.StructType):
        yield kind
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from structs(one)
    elif isinstance(kind, inspect.VarTupleType):
        yield from structs(kind.item_type)
    elif isinstance(kind, inspect.DictType):
        yield from structs(kind.value_type)


def in_words(error: str, content: Any, spec: type) -> str:  # noqa: ANN401 - whatever the YAML file holds
    """What msgspec says of a spec, as the spec's author needs it.

    Args:
        error: What it says.
        content: The spec as it was read.
        spec: The spec's type.
    """
    parts = _SAID.fullmatch(error)
    said, place = (parts["said"], parts["place"] or "") if parts else (error, "")
    if missing := _MISSING.fullmatch(said):
        return f"{place or 'it'} lacks {_lacking(missing[1], *_at(content, place, spec))}"
    if unknown := _UNKNOWN.fullmatch(said):
        return f"{place or 'it'} has no field {unknown[1]}: {_instead(unknown[1], spec, *_at(content, place, spec))}"
    if said.startswith("Invalid ") and (values := _values(place, content, spec)):
        return f"{error}: use one of {', '.join(values)}"
    return next((f"{place} must be {words}" for pattern, words in PATTERNS.items() if repr(pattern) in said), error)


def _values(place: str, content: Any, spec: type) -> list[str]:  # noqa: ANN401 - as above
    """What a field may say, where that is a choice."""
    before, _, name = place.rpartition(".")
    _, kinds = _at(content, before, spec)
    tags = [str(kind.tag) for kind in kinds if kind.tag_field == name]
    fields = [field.type for kind in kinds for field in kind.fields if field.encode_name == name]
    return tags or [value for field in fields for value in choices(field)]


def choices(kind: inspect.Type) -> list[str]:
    """The values of a field that is a choice; none of another."""
    if isinstance(kind, inspect.EnumType):
        return [str(member.value) for member in kind.cls]
    return [str(value) for value in kind.values] if isinstance(kind, inspect.LiteralType) else []


def _at(content: Any, place: str, spec: type) -> tuple[Any, list[inspect.StructType]]:  # noqa: ANN401 - as above
    """What lies at a place of a spec, and the blocks that may."""
    kinds = list(structs(inspect.type_info(spec)))
    for name, index in _STEP.findall(place):
        if name:
            fields = [field for kind in kinds for field in kind.fields if field.encode_name == name]
            content, kinds = content[name], [kind for field in fields for kind in structs(field.type)]
        else:  # of a mapping msgspec does not say which entry
            content = next(iter(content.values())) if index == "..." else content[int(index)]
        tagged = (
            [kind for kind in kinds if kind.tag_field and kind.tag == content.get(kind.tag_field)]
            if isinstance(content, dict)
            else []
        )
        kinds = tagged or kinds
    return content, kinds


def _lacking(first: str, content: dict[str, Any], kinds: list[inspect.StructType]) -> str:
    """All the fields that a block lacks; of one whose kind is not known, the kind."""
    if len(kinds) != 1:
        return f"{first}: {', '.join(str(kind.tag) for kind in kinds)}"
    return ", ".join(
        field.encode_name for field in kinds[0].fields if field.required and field.encode_name not in content
    )


def _instead(wrong: str, spec: type, _content: object, kinds: list[inspect.StructType]) -> str:
    """Where a field belongs, or which one may be meant."""
    names = [field.encode_name for kind in kinds for field in kind.fields]
    elsewhere = [
        path or "the spec itself"
        for path, block in blocks(spec)
        if wrong in [field.encode_name for field in block.fields]
    ]
    close = difflib.get_close_matches(wrong, names, n=1)
    if elsewhere and not close:
        return f"it belongs under {' or '.join(elsewhere[:2])}"
    return f"do you mean {close[0]}?" if close else f"it has {', '.join(names)}"
