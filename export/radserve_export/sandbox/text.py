"""Text that somebody else wrote, fit for a terminal."""

from __future__ import annotations

LONGEST = 600


def one_line(text: str, longest: int = LONGEST) -> str:
    """Text without control characters, and cut where it is too long.

    Args:
        text: Anything.
        longest: Most characters.
    """
    shown = "".join(character if character.isprintable() else " " for character in text[: longest + 1])
    return shown if len(shown) <= longest else shown[:longest] + "..."
