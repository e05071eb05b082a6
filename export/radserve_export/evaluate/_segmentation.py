"""How good a segmentation is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.contracts import LABEL_MAP, ImageInput
from radserve.dicom import read_image
from radserve.errors import ExportError
from radserve.preprocess import placement_of, to_source_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from radserve import Model, Segmentation
    from radserve_export.reference import Reference
    from radserve_export.spec import Spec
    from radserve_export.synthetic import Sample


def score(spec: Spec, samples: Sequence[Sample], results: Sequence[Segmentation]) -> dict[str, Any]:
    """Compare label maps with the truth, on the source image's own grid.

    Args:
        spec: Names the labels.
        samples: What was sent, with their truth.
        results: What came back, in the same order.

    Returns:
        n, labels, for each of them the mean Dice coefficient over the images
        that show it or are said to (``dice_by_label``; None where there are
        none) and their number (``n_by_label``), and the mean of these (``dice``).
    """
    found: list[list[float]] = [[] for _ in spec.labels]
    for sample, result in zip(samples, results, strict=True):
        truth = _truth(spec, sample)
        for value, scores in enumerate(found, start=1):
            expected, answered = truth == value, result.label_map == value
            size = int(expected.sum() + answered.sum())
            if size:
                scores.append(2 * int((expected & answered).sum()) / size)
    means = [float(np.mean(scores)) if scores else None for scores in found]
    known = [mean for mean in means if mean is not None]
    return {
        "n": len(samples),
        "labels": [label.name for label in spec.labels],
        "dice_by_label": means,
        "n_by_label": [len(scores) for scores in found],
        "dice": float(np.mean(known)) if known else 0.0,
    }


def measure_skew(
    model: Model[Segmentation], samples: Sequence[Sample], results: Sequence[Segmentation], reference: Reference
) -> dict[str, Any]:
    """Share of pixels whose served label is another than Keras' on the SDK's preprocessing.

    Args:
        model: The served model.
        samples: Some of what was sent.
        results: What came back, in the same order.
        reference: Keras' answers.

    Returns:
        n and max: the share over the pixels of all images together.
    """
    described = model.contract.input
    if not isinstance(described, ImageInput):
        msg = f"{model.name}: its contract describes no image"
        raise ExportError(msg)
    different = total = 0
    for sample, result in zip(samples, results, strict=True):
        (expected,) = reference(model.prepare(sample.source))[LABEL_MAP]
        rows, columns = result.label_map.shape
        pixel_aspect = read_image(sample.source).pixel_aspect
        on_source = to_source_grid(expected, placement_of((rows, columns), described, pixel_aspect))
        different += int((on_source != result.label_map).sum())
        total += on_source.size
    return {"n": len(samples), "max": different / max(1, total)}


def _truth(spec: Spec, sample: Sample) -> NDArray[np.uint8]:
    if sample.truth is None:
        msg = f"{spec.name}: the generated samples have no label maps: choose another evaluation.generator"
        raise ExportError(msg)
    return sample.truth
