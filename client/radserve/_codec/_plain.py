"""What the parts of this package hand to each other."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is made for each call: a tenth of a dataclass's cost, and never written as text.

    A representation shows nothing of what is held: pixels, reports and secrets.
    """

    __repr__ = object.__repr__


def made(kind: type[T], attributes: dict[str, Any]) -> T:
    """A frozen dataclass of all its attributes, at a third of the cost of its own constructor.

    That one sets each of them through ``object.__setattr__``, which of a result takes longer than to check the answer.
    """
    one = object.__new__(kind)
    object.__setattr__(one, "__dict__", attributes)
    return one
