"""On which line a field of a text-format message stands.

Protobuf's own parser gives the message without the positions, and keeps only
the last of two map entries with one key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<word>[\w.+\-]+)|(?P<sign>.)"""
)
_CLOSING = {"{": "}", "<": ">"}


@dataclass(kw_only=True)
class Field:
    """A field of a message, or the message itself.

    Attributes:
        name: Its name; empty for the whole file.
        line: Where it begins, from 1.
        value: A scalar's text, without quotes.
        fields: What a message consists of, in the order of the text.
    """

    name: str = ""
    line: int = 1
    value: str = ""
    fields: list[Field] = field(default_factory=list)

    def all(self, name: str) -> list[Field]:
        """All fields of a name, in the order of the text."""
        return [one for one in self.fields if one.name == name]

    def at(self, *names: str, number: int = 0) -> Field:
        """Follow names inwards, as far as they are there.

        Args:
            names: A field's, then that of one inside it, and so on.
            number: Which of those with the first name.
        """
        if not names:
            return self
        found = self.all(names[0])
        return found[number].at(*names[1:]) if number < len(found) else self

    def keyed(self, name: str, key: str, by: str = "name") -> Field:
        """The first field of a name that holds a scalar; this one where there is none."""
        found = (one for one in self.all(name) if any(inner.value == key for inner in one.all(by)))
        return next(found, self)


def scan(text: str) -> Field:
    """Read a text that protobuf's parser has accepted."""
    tokens = _Tokens(text)
    root = Field()
    root.fields = list(tokens.message(""))
    return root


class _Tokens:
    def __init__(self, text: str) -> None:
        self._found: list[tuple[str, str, int]] = []
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "skip":
                self._found.append((match.lastgroup or "", match.group(), line))
            line += match.group().count("\n")
        self._place = 0

    def _peek(self) -> str:
        return self._found[self._place][1] if self._place < len(self._found) else ""

    def _take(self) -> tuple[str, str, int]:
        self._place += 1
        return self._found[self._place - 1]

    def message(self, end: str) -> Iterator[Field]:
        """Fields up to a closing sign, which is taken."""
        while self._place < len(self._found):
            _, name, line = self._take()
            if name == end:
                return
            if name in ",;":
                continue
            if self._peek() == ":":
                self._take()
            if self._peek() != "[":
                yield self._value(name, line)
                continue
            self._take()
            while self._peek() not in ("]", ""):
                if self._peek() == ",":
                    self._take()
                else:
                    yield self._value(name, self._found[self._place][2])
            if self._peek():
                self._take()

    def _value(self, name: str, line: int) -> Field:
        kind, text, _ = self._take()
        if text in _CLOSING:
            return Field(name=name, line=line, fields=list(self.message(_CLOSING[text])))
        if kind != "string":
            return Field(name=name, line=line, value=text)
        parts = [text[1:-1]]
        while self._place < len(self._found) and self._found[self._place][0] == "string":
            parts.append(self._take()[1][1:-1])
        return Field(name=name, line=line, value="".join(parts))
