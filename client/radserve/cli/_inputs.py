"""What the user named: files, what is in folders, reports, standard input."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radserve.cli._label_maps import STANDARD_INPUT
from radserve.contracts import ImageInput, TextInput
from radserve.errors import InputError
from radserve.journal import content_key, file_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from radserve.contracts import Contract


@dataclass(frozen=True, repr=False)
class Item:
    """One input.

    Attributes:
        name: What the user calls it.
        given: The text, bytes, paths or path; or why there is none.
        is_report: It is a file that holds a report's text.
    """

    name: str
    given: str | bytes | list[str] | InputError
    is_report: bool = False

    def source(self) -> Any:  # noqa: ANN401 - what predict() takes
        """What to predict of; an InputError says why there is nothing."""
        return Path(self.given) if self.is_report and isinstance(self.given, str) else self.given

    def key(self) -> str | None:
        """What a journal knows it by; None where there is nothing to know."""
        if isinstance(self.given, bytes):
            return content_key(self.given)
        if self.given != self.name and isinstance(self.given, str):
            return content_key(self.given.encode(errors="surrogateescape"))
        if not isinstance(self.given, InputError):
            with suppress(OSError):
                return file_key(self.name)
        return None


@dataclass
class Inputs:
    """All inputs, in their order.

    Attributes:
        items: They.
        passed_over: What is in the folders and is no input, by kind.
    """

    items: list[Item] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, names: Sequence[str], texts: Sequence[str], contract: Contract) -> Inputs:
        """Find what a model can be asked about.

        A folder stands for all files in it and below; where a model answers
        studies, each folder that has files is one.

        Args:
            names: Files, folders or ``-``.
            texts: Reports.
            contract: The model's.
        """
        inputs = cls()
        is_text = isinstance(contract.input, TextInput)
        is_study = isinstance(contract.input, ImageInput) and contract.input.study is not None
        empty = []
        for name in names:
            if name == STANDARD_INPUT:
                inputs.items.append(Item(name, sys.stdin.buffer.read(), is_text))
            elif Path(name).is_dir():
                found = list(inputs._found(name, is_text=is_text, is_study=is_study))
                inputs.items += found
                empty += [] if found else [Item(name, InputError(f"the folder holds no {'.txt ' * is_text}file"))]
            else:
                inputs.items.append(Item(name, name, is_text))
        inputs.items += empty
        inputs.items += [Item(f"text {number}", text) for number, text in enumerate(texts, start=1)]
        return inputs

    def _found(self, given: str, *, is_text: bool, is_study: bool) -> Iterator[Item]:
        for folder, folders, files in os.walk(given):
            hidden = [entry for entry in folders if entry.startswith(".")]
            self.passed_over["hidden"] += len(hidden)
            folders[:] = sorted(set(folders).difference(hidden))
            paths = [str(Path(folder, file)) for file in sorted(files) if not self._passes_over(file, is_text=is_text)]
            if is_study and paths:
                yield Item(folder, paths)
            elif not is_study:
                yield from (Item(path, path, is_text) for path in paths)

    def _passes_over(self, file: str, *, is_text: bool) -> bool:
        suffix = Path(file).suffix
        kind = ""
        if file.startswith("."):
            kind = "hidden"
        elif is_text:
            kind = "" if suffix == ".txt" else "not .txt"
        elif suffix == ".csv" or file == "DICOMDIR":
            kind = suffix or file
        self.passed_over[kind] += bool(kind)
        return bool(kind)

    def notice(self) -> str | None:
        """One line about what was passed over, if anything was."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.passed_over.items()) if count)
        return f"passed over in folders: {kinds}" if kinds else None
