"""What metrics tell of the reference models, as a real Triton serves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

import radserve.metrics
from radserve import Classification, Client
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve_server import EmbeddedServer


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    found = CollectorRegistry()
    registered = radserve.metrics.register(found)
    yield found
    registered.unregister()


@pytest.mark.parametrize("processes", [False, True])
def test_levels_and_scores_stand_beside_their_reference(
    reference_server: EmbeddedServer, registry: CollectorRegistry, *, processes: bool
) -> None:
    sources = [sample.source for sample in generate("ct_hemorrhage", 6, seed=20_261_124, split=Split.TEST)]
    with Client(reference_server.grpc_url) as client:
        model = client.model("ct_hemorrhage")
        answers = [one for one in model.predict_many(sources, processes=processes) if isinstance(one, Classification)]
    of = {"model": model.name, "version": str(model.version)}
    reference = model.contract.reference
    assert reference is not None
    assert reference.level is not None
    assert registry.get_sample_value("radserve_input_level_count", of) == len(sources)
    assert registry.get_sample_value("radserve_prepare_seconds_count", {"model": model.name}) == len(sources)
    assert registry.get_sample_value("radserve_requests_total", {"model": model.name, "outcome": "ok"}) == len(sources)
    told = {sample.name: sample.labels for metric in registry.collect() for sample in metric.samples}
    assert {"radserve_input_level_bucket", "radserve_input_level_reference", "radserve_score_reference"} <= told.keys()
    for label, _ in zip(model.contract.labels, reference.scores, strict=True):
        expected = sum(answer[label.name].probability for answer in answers)
        assert registry.get_sample_value("radserve_score_count", {**of, "label": label.name}) == len(sources)
        assert registry.get_sample_value("radserve_score_sum", {**of, "label": label.name}) == pytest.approx(expected)
