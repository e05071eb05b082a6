"""The data that a spec names: to train, calibrate and evaluate on, and to compare later inputs with."""

from __future__ import annotations

from typing import Annotated

import msgspec

from radserve_export.serving import Block, Count

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Generated(Block, frozen=True, kw_only=True):
    """Generated data: a name of ``radserve_export.synthetic``, how much of it, from which seed."""

    generator: str
    samples: Count
    seed: int


class _EitherData(Block, frozen=True, kw_only=True):
    """Generated data, or one's own.

    Attributes:
        generator: A name of ``radserve_export.synthetic``; with samples and seed.
        samples: How many samples to generate.
        seed: Of the generator: another than the training's.
    """

    generator: str | None = None
    samples: Count = 1000
    seed: int = 0
    data: str | None = None

    def __post_init__(self) -> None:
        """Refuse two sources, or none."""
        if (self.generator is None) == (self.data is None):
            msg = "name either a generator or data"
            raise ValueError(msg)


class Calibrate(_EitherData, frozen=True, kw_only=True):
    """Held-out data that the temperature of the probabilities is fitted on.

    Attributes:
        data: A folder of DICOM files instead, or a MedMNIST ``.npz``, whose test images are
            taken; relative to the spec file.
        labels: CSV with the columns file and label, for a folder; relative to the spec file.
    """

    labels: str | None = None


class ReferenceInputs(_EitherData, frozen=True, kw_only=True):
    """Inputs as they come where the model will be used, 200 or more, and none that it was trained on.

    Attributes:
        data: A folder of DICOM files (``.txt`` files of a text model) instead, without labels; or,
            also for volumes, a MedMNIST ``.npz``, whose test images are taken; relative to the
            spec file.
    """


class Evaluation(Generated, frozen=True, kw_only=True):
    """Fresh data sent through the whole path before the model is published.

    Attributes:
        minimum_accuracy: Share of right answers that a classifier must reach.
        minimum_dice: Mean Dice coefficient that a segmentation must reach.
        minimum_exact_match: Share of texts that a generator must write word by word.
    """

    minimum_accuracy: Share | None = None
    minimum_dice: Share | None = None
    minimum_exact_match: Share | None = None

    @property
    def minimum(self) -> float:
        """What must be reached, of whatever the task is measured by."""
        given = (self.minimum_accuracy, self.minimum_dice, self.minimum_exact_match)
        return next((share for share in given if share is not None), 0.0)
