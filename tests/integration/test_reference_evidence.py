"""Where the committed chest network looks, through the whole path, on phantoms whose lesions are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from radserve import Classification, Client
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve_server import EmbeddedServer

# Not the seed of any spec: neither training nor the export has seen these samples.
SAMPLES, FRESH = 300, 535_353
LEAST_SHARE = 0.9


@pytest.fixture(scope="module")
def answered(reference_server: EmbeddedServer) -> list[tuple[str, Classification, NDArray[np.bool_]]]:
    """Label, answer and true lesion of the true positives that have a place."""
    samples = list(generate("chest_xray", SAMPLES, seed=FRESH, split=Split.TEST))
    with Client(reference_server.grpc_url) as client:
        model = client.model("chest_xray_evidence", Classification)
        results = list(model.predict_many(sample.source for sample in samples))
    return [
        (sample.label, result, sample.truth > 0)
        for sample, result in zip(samples, results, strict=True)
        if isinstance(result, Classification) and sample.truth is not None and result.top.label == sample.label
    ]


def test_the_maps_maximum_lies_in_the_lesion(answered: list[tuple[str, Classification, NDArray[np.bool_]]]) -> None:
    hits: dict[str, list[bool]] = {}
    for label, result, lesion in answered:
        assert result.evidence is not None
        values = result.evidence.values
        assert values.shape == lesion.shape
        hits.setdefault(label, []).append(bool(lesion[np.unravel_index(values.argmax(), values.shape)]))
    found = {label: f"{sum(one)}/{len(one)}" for label, one in sorted(hits.items())}
    every = [hit for one in hits.values() for hit in one]
    assert len(every) > 0.6 * SAMPLES, "four classes of six have a place"
    assert np.mean(every) >= LEAST_SHARE, found


def test_chance_would_not_do(answered: list[tuple[str, Classification, NDArray[np.bool_]]]) -> None:
    """The same maps beside other images' lesions: what the figure above is worth."""
    hits = []
    for (_, result, _), (_, _, other) in zip(answered, answered[1:] + answered[:1], strict=True):
        assert result.evidence is not None
        values = result.evidence.values
        place = np.unravel_index(values.argmax(), values.shape)
        hits.append(bool(other[place]) if all(np.less(place, other.shape)) else False)
    assert np.mean(hits) < LEAST_SHARE / 2
