"""The reference models' references know their own population, and a shifted one is not it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from prometheus_client import CollectorRegistry
from support.drift import SHIFTS, told_distance

from radserve import Client, Rejection
from radserve.metrics import register
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from support.drift import Source

    from radserve import Model
    from radserve_server import EmbeddedServer

pytestmark = pytest.mark.full
RULES = yaml.safe_load((Path(__file__).resolve().parents[2] / "deploy/monitoring/rules.yml").read_text())
OBSERVED = 200  # the fewest inputs that it looks at
FEWEST_ANSWERED = 190  # some recordings of twice the gain are more than the wire holds
FRESH = 20_261_123


@pytest.fixture(scope="module")
def client(reference_server: EmbeddedServer) -> Iterator[Client]:
    with Client(reference_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module", params=sorted(SHIFTS))
def model(request: pytest.FixtureRequest, client: Client) -> Model:
    return client.model(request.param)


@pytest.fixture(scope="module")
def sources(model: Model) -> list[Source]:
    return [sample.source for sample in generate(model.name, OBSERVED, seed=FRESH, split=Split.TEST)]


def bound(alert: str) -> float:
    """From where on an alert fires."""
    (rule,) = (rule for group in RULES["groups"] for rule in group["rules"] if rule.get("alert") == alert)
    (found,) = re.findall(r":distance1d > (0\.\d+)", rule["expr"])
    return float(found)


def distances(model: Model, sources: Sequence[Source]) -> dict[str, float]:
    """Of the inputs' levels, and of each label's scores, as the SDK's metrics tell them."""
    reference, registry = model.contract.reference, CollectorRegistry()
    assert reference is not None
    metrics = register(registry)
    try:
        answers = list(model.predict_many(sources))
        found = {"level": told_distance(registry, "radserve_input_level")}
        for label, _ in zip(model.contract.labels, reference.scores, strict=False):  # those of a segmentation have none
            found[label.name] = told_distance(registry, "radserve_score", label=label.name)
    finally:
        metrics.unregister()
    assert sum(not isinstance(answer, Rejection) for answer in answers) >= FEWEST_ANSWERED
    return found


def test_fresh_inputs_of_the_same_population_stay_below_the_alerts_bound(model: Model, sources: list[Source]) -> None:
    found = distances(model, sources)
    assert found.pop("level") < bound("RadserveInputDrift"), found
    assert max(found.values(), default=0) < bound("RadserveScoreDrift"), found


def test_a_shifted_population_exceeds_it(model: Model, sources: list[Source]) -> None:
    found = distances(model, [SHIFTS[model.name](source) for source in sources])
    assert found["level"] > bound("RadserveInputDrift"), found
