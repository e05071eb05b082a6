"""What a model's inputs and answers were like when it was exported: later ones are compared with it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import msgspec

from radserve.contracts._inputs import Finite
from radserve.contracts._tensors import Struct

_SUM_TOLERANCE = 1e-6
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Distribution(Struct, frozen=True, kw_only=True):
    """How a quantity is distributed, in bins.

    Attributes:
        edges: Upper ends of the bins, inclusive, ascending; the last bin has none.
        shares: Share of the inputs in each bin, one more than there are edges.
    """

    edges: Annotated[tuple[Finite, ...], msgspec.Meta(min_length=1, max_length=64)]
    shares: Annotated[tuple[_Share, ...], msgspec.Meta(max_length=65)]

    def __post_init__(self) -> None:
        """Refuse what is no distribution."""
        if not all(low < high for low, high in pairwise((-math.inf, *self.edges, math.inf))):
            msg = "the edges of a distribution must ascend"
            raise ValueError(msg)
        if len(self.shares) != len(self.edges) + 1 or not abs(math.fsum(self.shares) - 1) <= _SUM_TOLERANCE:
            msg = "a distribution has one share more than edges, and they add up to 1"
            raise ValueError(msg)


class Reference(Struct, frozen=True, kw_only=True):
    """The population that a model was made for, as its exporter saw it.

    Attributes:
        n: Number of inputs.
        level: Of ``radserve.preprocess.level``.
        scores: Of each label's probability, in the order of the labels; none where the
            model gives no probabilities.
    """

    n: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    level: Distribution | None = None
    scores: Annotated[tuple[Distribution, ...], msgspec.Meta(max_length=4096)] = ()
