"""The parts of a grammar of radiology reports, whatever the language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding; a report never both asserts and denies it.

    Attributes:
        names: What it is called.
        places: Words for where, put before the name.
        qualities: Words for how much or since when; only a finding that is there has one.
    """

    names: tuple[str, ...]
    places: tuple[str, ...] = ()
    qualities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """Sentences of one language in one split, without their full stop.

    ``[a|b]`` is a choice. ``{present}``, ``{absent}``, ``{absent2}``, ``{absent3}``
    and ``{past}`` stand for findings that are there, that are not, and that are
    only asked about or over; ``{a present}`` asks for an article. ``{n}`` is a number.

    Attributes:
        present: A finding is there now: asserted, unchanged, only partly gone,
            suspected by the reader, or one that cannot be excluded.
        absent: Findings are not there: negated, excluded or resolved.
        contrast: One that is there and one that is not, in one sentence.
        past: Requests and histories: they say nothing of what is there now.
        neutral: Technique, comparison and normal anatomy.
        openings: Put before what is or is not there, now and then.
        headings: Before the history, the findings and the summary.
    """

    present: tuple[str, ...]
    absent: tuple[str, ...]
    contrast: tuple[str, ...]
    past: tuple[str, ...]
    neutral: tuple[str, ...]
    openings: tuple[str, ...]
    headings: tuple[str, str, str]
