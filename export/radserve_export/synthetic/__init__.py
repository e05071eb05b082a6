"""Generated data: phantoms, rhythms and reports. No real patient is in them.

Every generator is a function ``generate(count, *, seed, split)`` that yields
samples; the same arguments yield the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING

from radserve.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

GENERATORS = (
    "chest_xray",
    "ct_hemorrhage",
    "brain_mri",
    "breast_ultrasound",
    "ct_lesion",
    "ecg_rhythm",
    "report_triage",
    "report_impression",
)


class Split(str, Enum):
    """Which part of the generated world; what the parts share is said by the generator."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One generated input.

    Attributes:
        source: The bytes of a DICOM file, or a report's text.
        label: Name of the label that applies; for a single-label model, of the
            positive label, or the empty string.
        expected: The text that should be generated from it; None where none is.
        truth: The true label map ``(rows, columns)`` on the image's own grid, 0 the
            background, k the k-th label; None where pixels have no label.
    """

    source: bytes | str
    label: str
    expected: str | None = None
    truth: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)


def generate(name: str, count: int, *, seed: int, split: Split) -> Iterator[Sample]:
    """Generate samples.

    Args:
        name: One of GENERATORS.
        count: How many.
        seed: The same seed yields the same samples.
        split: Training or held-out world.

    Raises:
        SpecError: There is no such generator.
    """
    found: Iterator[Sample] = _module(name).generate(count, seed=seed, split=split)
    return found


def labels(name: str) -> tuple[str, ...]:
    """The labels that a generator gives.

    Raises:
        SpecError: There is no such generator.
    """
    found: tuple[str, ...] = _module(name).LABELS
    return found


def _module(name: str) -> ModuleType:
    if name not in GENERATORS:
        msg = f"there is no generator {name}: use one of {', '.join(GENERATORS)}"
        raise SpecError(msg)
    return import_module(f"radserve_export.synthetic.{name}")
