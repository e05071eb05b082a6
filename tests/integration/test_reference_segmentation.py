"""The committed segmentation, through the whole path: file, SDK, Triton, label map on the file's grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from radserve import Client, Segmentation
from radserve.contracts import ImageInput
from radserve.dicom import read_image
from radserve.preprocess import placement_of, to_source_grid
from radserve_export.evaluate._segmentation import score
from radserve_export.from_keras._tensorflow import keras
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.spec import load_spec
from radserve_export.synthetic import Sample, Split, generate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_server import EmbeddedServer

SPECS = Path(__file__).resolve().parents[2] / "export" / "specs"
SPEC = load_spec(SPECS / "ct_lesion.yaml")
# Not the seed of the spec: neither training nor the export has seen these phantoms.
FRESH = 424_242
COUNT = 150


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(generate("ct_lesion", COUNT, seed=FRESH, split=Split.TEST))


@pytest.fixture(scope="module")
def answered(reference_server: EmbeddedServer, samples: list[Sample]) -> tuple[NDArray[np.uint8], list[Segmentation]]:
    """What went over the wire, and what came back."""
    with Client(reference_server.grpc_url) as client:
        model = client.model("ct_lesion", Segmentation)
        results = list(model.predict_many(sample.source for sample in samples))
        wire = np.concatenate([model.prepare(sample.source)["PIXELS"] for sample in samples])
    found = [result for result in results if isinstance(result, Segmentation)]
    assert len(found) == COUNT
    return wire, found


def test_mean_dice_on_fresh_phantoms_is_at_least_0_9(
    samples: list[Sample], answered: tuple[NDArray[np.uint8], list[Segmentation]]
) -> None:
    found = score(SPEC, samples, answered[1])
    assert min(found["n_by_label"]) >= 100
    assert found["dice"] >= 0.9, found
    assert min(found["dice_by_label"]) >= 0.9, found


def test_the_lesion_comes_back_where_it_is(
    samples: list[Sample], answered: tuple[NDArray[np.uint8], list[Segmentation]]
) -> None:
    offsets = []
    for sample, result in zip(samples, answered[1], strict=True):
        assert sample.truth is not None
        one, two = sample.truth == 2, result.label_map == 2
        if one.any() and two.any():
            offsets.append(np.argwhere(two).mean(axis=0) - np.argwhere(one).mean(axis=0))
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.25  # pixels of the file: no shift in either direction


def test_served_labels_are_those_of_keras(
    samples: list[Sample], answered: tuple[NDArray[np.uint8], list[Segmentation]]
) -> None:
    wire, results = answered
    assert isinstance(SPEC.input, ImageInput)
    model = keras.models.load_model(SPECS / SPEC.model, safe_mode=True)
    p = model.predict(preprocess_reference(wire, SPEC.network_input), verbose=0)
    two_best = np.sort(p, axis=-1)[..., -2:]
    is_tie = two_best[..., 1] - two_best[..., 0] < 1e-4
    for sample, labels, tie, result in zip(samples, p.argmax(axis=-1), is_tie, results, strict=True):
        assert sample.truth is not None
        placement = placement_of((sample.truth.shape[0], sample.truth.shape[1]), SPEC.input)
        same = to_source_grid(labels, placement) == result.label_map
        assert (same | to_source_grid(tie, placement)).all()


def test_areas_are_those_of_the_truth(
    samples: list[Sample], answered: tuple[NDArray[np.uint8], list[Segmentation]]
) -> None:
    for sample, result in zip(samples, answered[1], strict=True):
        assert sample.truth is not None
        spacing = read_image(sample.source).pixel_spacing_mm
        assert spacing is not None
        (liver, _) = result.findings
        assert liver.area_mm2 == pytest.approx((sample.truth == 1).sum() * spacing[0] * spacing[1], rel=0.15)
