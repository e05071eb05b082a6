"""The committed text generator, through the whole path: findings, SDK, Triton, impression."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from radserve import Client, GeneratedText
from radserve_export.evaluate._generation import score
from radserve_export.spec import load_spec
from radserve_export.synthetic import Sample, Split, generate

if TYPE_CHECKING:
    from radserve_server import EmbeddedServer

    Answered = tuple[list[Sample], list[GeneratedText]]

SPEC = load_spec(Path(__file__).resolve().parents[2] / "export" / "specs" / "report_impression.yaml")
# Not the seed of the spec: neither training nor the export has seen these reports, nor, as the
# test split holds combinations of its own, any line of their impressions that names a finding.
FRESH, COUNT = 424_242, 1000


@pytest.fixture(scope="module")
def answered(reference_server: EmbeddedServer) -> Answered:
    samples = list(generate(SPEC.name, COUNT, seed=FRESH, split=Split.TEST))
    with Client(reference_server.grpc_url) as client:
        results = list(client.model(SPEC.name, GeneratedText).predict_many(sample.source for sample in samples))
    found = [result for result in results if isinstance(result, GeneratedText)]
    assert len(found) == COUNT
    return samples, found


@pytest.mark.parametrize("every_other_from", [0, 1], ids=["English", "Chinese"])
def test_95_percent_of_fresh_impressions_match_to_the_letter(answered: Answered, every_other_from: int) -> None:
    samples, results = answered
    found = score(SPEC, samples[every_other_from::2], results[every_other_from::2])
    assert found["n"] == COUNT / 2
    assert found["exact_match"] >= 0.95, found
