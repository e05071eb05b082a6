"""The committed reference models, through the whole path: file, SDK, Triton, finding."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from radserve import Classification, Client
from radserve_export.evaluate import MAX_SKEW
from radserve_export.evaluate._classification import measure_skew, score
from radserve_export.from_keras.convert import convert
from radserve_export.from_keras.load import load_model
from radserve_export.reference import Reference
from radserve_export.spec import load_spec
from radserve_export.synthetic import Sample, Split, generate
from radserve_export.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve import Model
    from radserve_server import EmbeddedServer

SPECS = Path(__file__).resolve().parents[2] / "export" / "specs"
NAMES = sorted(path.stem for path in SPECS.glob("*.yaml"))
CLASSIFIERS = [name for name in NAMES if load_spec(SPECS / f"{name}.yaml").metric == "accuracy"]
# Not the seed of any spec: neither training nor the export has seen these samples.
FRESH = 424_242


@pytest.fixture(scope="module")
def client(reference_server: EmbeddedServer) -> Iterator[Client]:
    with Client(reference_server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module", params=CLASSIFIERS)
def answered(request: pytest.FixtureRequest, client: Client) -> tuple[Model, list[Sample], list[Classification]]:
    samples = list(generate(request.param, 250, seed=FRESH, split=Split.TEST))
    model = client.model(request.param)
    results = list(model.predict_many(sample.source for sample in samples))
    assert all(isinstance(result, Classification) for result in results)
    return model, samples, [result for result in results if isinstance(result, Classification)]


def test_accuracy_on_fresh_files_is_at_least_95_percent(
    answered: tuple[Model, list[Sample], list[Classification]],
) -> None:
    model, samples, results = answered
    found = score(load_spec(SPECS / f"{model.name}.yaml"), samples, results)
    assert found["accuracy"] >= 0.95, found


def test_served_probabilities_are_those_of_keras(
    answered: tuple[Model, list[Sample], list[Classification]],
) -> None:
    model, samples, results = answered
    path = SPECS / f"{model.name}.yaml"
    spec = load_spec(path)
    keras_model, sha256 = load_model(path.parent / spec.model, trust=False)
    tokenizer = read_tokenizer(path.parent / spec.tokenizer) if spec.tokenizer else None
    reference = Reference(
        msgspec.structs.replace(spec, calibration=model.contract.calibration),
        convert(keras_model, source_sha256=sha256),
        tokenizer,
    )
    found = measure_skew(model, samples[:200], results, reference)
    assert found["n"] == 200
    assert found["max"] <= MAX_SKEW


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_coded_and_sourced_and_the_use_is_stated(client: Client, name: str) -> None:
    contract = client.model(name).contract
    for label in contract.labels:
        assert label.code.scheme in {"SCT", "DCM", "99RADSERVE"}
        assert label.code.source, label.name
        assert label.code.value != "TODO"
    assert "not for clinical use" in contract.intended_use
