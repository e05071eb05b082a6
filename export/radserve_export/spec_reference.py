"""Writes the reference of all fields of a spec: ``python -m radserve_export.spec_reference export/specs/README.md``."""

from __future__ import annotations

import re
import sys
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import NODEFAULT, inspect

from radserve_export.spec import Spec
from radserve_export.spec_fields import PATTERNS, blocks, choices, structs

if TYPE_CHECKING:
    from radserve_export.spec_fields import Found

_HEAD = """# Export specs

One YAML file says how a trained model becomes a served one. `radserve export` refuses what is not listed here.
The specs in this folder are examples of every task; this list is written from the code
(`python -m radserve_export.spec_reference export/specs/README.md`).

What the client does is under `input`: it decides which files are accepted, and how their pixels or samples become the
model's. An image's channels follow from `photometric`: a network of `[224, 224, 3]` needs `photometric: RGB`, one of
`[224, 224, 1]` MONOCHROME2. `window` says which values of the file become black and white, `network_input` what the
server then makes of the integers on the wire, such as `{scale: 0.00392156862745098}` for a network trained on 0 to 1.
`exclusive: true` belongs to a network that ends in softmax, `false` to one that ends in sigmoids.

```yaml
name: chest
task: image_classification
model: chest.keras                # (224, 224, 3) in, 2 softmax probabilities out
input:
  kind: image
  modalities: [DX, CR]
  rows: 224
  columns: 224
  photometric: RGB
  window: {kind: file}
network_input: {scale: 0.00392156862745098}
exclusive: true
labels:
  - {name: normal, code: {value: normal, scheme: 99RADSERVE, meaning: No abnormality}}
  - {name: opacity, code: {value: opacity, scheme: 99RADSERVE, meaning: Opacity}}
```

`serving: {instances: {kind: gpu}}` makes a repository for servers with a GPU alone: without one, `radserve serve` stops
and says so. `kind: auto` serves in both places.
"""


def reference() -> str:
    """The whole reference, as Markdown."""
    return "\n".join([_HEAD, *(_section(found) for found in blocks(Spec))])


def _title(found: Found) -> str:
    where = f"`{found.path}`" if found.path else "The spec"
    return f"{where} of kind `{found.type.tag}`" if found.type.tag else where


def _section(found: Found) -> str:
    cls = found.type.cls
    meanings = _meanings(cls)
    tag = [(found.type.tag_field, f"`{found.type.tag}`", "needed", "")] if found.type.tag else []
    rows = [
        *tag,
        *(
            (field.encode_name, _words(field.type), _default(field), meanings.get(field.encode_name, ""))
            for field in found.type.fields
        ),
    ]
    lines = [f"| `{name}` | {kind} | {default} | {meaning} |" for name, kind, default, meaning in rows]
    summary = cleandoc(cls.__doc__ or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")
    return "\n".join(
        [
            f"## {_title(found)}",
            "",
            summary,
            "",
            "| field | value | default | meaning |",
            "| --- | --- | --- | --- |",
            *lines,
            "",
        ]
    )


def _meanings(cls: type) -> dict[str, str]:
    """What docstrings say of the fields, those of base classes included."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        _, _, listed = cleandoc(one.__doc__ or "").partition("Attributes:\n")
        for name, said in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE):
            found[name] = re.sub(r"\s+", " ", said).replace("``", "`").replace("|", "\\|")
    return found


def _words(kind: inspect.Type) -> str:  # noqa: PLR0911 - one return for each kind
    if values := choices(kind):
        return " or ".join(f"`{value}`" for value in values)
    if list(structs(kind)):
        inner = "block"
        if isinstance(kind, inspect.VarTupleType):
            return "list of blocks"
        return "blocks by name" if isinstance(kind, inspect.DictType) else inner
    if isinstance(kind, inspect.UnionType):
        return " or ".join(_words(one) for one in kind.types if not isinstance(one, inspect.NoneType))
    if isinstance(kind, inspect.VarTupleType):
        return f"list: {_words(kind.item_type)}"
    if isinstance(kind, inspect.TupleType):
        return f"list of {len(kind.item_types)}: {_words(kind.item_types[0])}"
    if isinstance(kind, inspect.BoolType):
        return "`true` or `false`"
    if isinstance(kind, inspect.StrType):
        return f"text: {PATTERNS[kind.pattern]}" if kind.pattern in PATTERNS else "text"
    return f"{'whole number' if isinstance(kind, inspect.IntType) else 'number'}{_bounds(kind)}"


def _bounds(kind: Any) -> str:  # noqa: ANN401 - msgspec's numbers have no common class
    bounds = (("from", kind.ge), ("above", kind.gt), ("to", kind.le), ("below", kind.lt))
    return "".join(f" {word} {value:.15g}" for word, value in bounds if value is not None)


def _default(field: inspect.Field) -> str:
    if field.required:
        return "needed"
    value = field.default if field.default is not NODEFAULT else field.default_factory()
    plain = msgspec.to_builtins(value)
    if plain in (None, "", [], {}) or isinstance(value, msgspec.Struct):
        return "" if plain in (None, "", [], {}) else "its own"
    return f"`{msgspec.json.encode(plain).decode()}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
