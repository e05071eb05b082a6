"""The parts of a grammar of findings and their impressions, whatever the language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Findings that are said in the same way.

    Attributes:
        names: What they are called.
        places: Where they can be.
        sentences: What findings say of one that is there. ``[a|b]`` is a choice;
            ``{name}``, ``{place}``, ``{grade}``, ``{n}`` (its size) and ``{other}``
            (its size before) are filled in.
        grades: How much of it there can be, where that is said instead of a size.
        impression: What the impression says; empty takes the language's own.
    """

    names: tuple[str, ...]
    places: tuple[str, ...]
    sentences: tuple[str, ...]
    grades: tuple[str, ...] = ()
    impression: str = ""


@dataclass(frozen=True, kw_only=True)
class Language:
    """Everything that a report in one language is made of, without full stops.

    Attributes:
        kinds: What can be found.
        impression: What the impression says of a measured finding.
        absent: ``{name}`` and ``{name2}`` are not there.
        resolved: Something is there no longer.
        normal: Technique, comparison and normal anatomy.
        nothing: The impression where nothing was found.
        gap: Between words and between sentences.
        stop: Ends a sentence.
        number: Put before each line of an impression that has several.
    """

    kinds: tuple[Kind, ...]
    impression: str
    absent: tuple[str, ...]
    resolved: tuple[str, ...]
    normal: tuple[str, ...]
    nothing: str
    gap: str
    stop: str
    number: str
