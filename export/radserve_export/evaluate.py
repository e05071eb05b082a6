"""Accuracy and skew through the whole path: file, SDK, Triton, finding."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve import Client, Rejection
from radserve.contracts import PROBABILITIES
from radserve.errors import ExportError, MissingExtraError
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from radserve import Classification, Model
    from radserve_export.reference import Reference
    from radserve_export.spec import Spec
    from radserve_export.synthetic import Sample

MAX_SKEW = 1e-4
_SKEW_SAMPLES = 200
_TIMEOUT_S = 60.0


def evaluate(staged: Path, spec: Spec, reference: Reference) -> dict[str, Any]:
    """Serve a repository and send it fresh samples.

    Args:
        staged: A repository that holds the model.
        spec: Names the samples and what must be reached.
        reference: The same answers, computed by Keras.

    Returns:
        n, seed, labels, confusion (rows are the truth), accuracy, and the skew.

    Raises:
        MissingExtraError: There is no embedded server.
        ExportError: A sample was refused, the accuracy is too low, or what is
            served differs from Keras on the SDK's own preprocessing.
    """
    try:
        from radserve_server import EmbeddedServer  # noqa: PLC0415 - only an evaluation needs the server
    except ImportError as error:
        what = "measuring accuracy through the whole path"
        raise MissingExtraError("server", what) from error  # noqa: EM101 - the extra's name, not a message
    plan = spec.evaluation
    if plan is None:
        msg = f"{spec.name}: the spec has no evaluation block"
        raise ExportError(msg)
    samples = list(generate(plan.generator, plan.samples, seed=plan.seed, split=Split.TEST))
    with EmbeddedServer(staged) as server, Client(server.grpc_url, timeout_s=_TIMEOUT_S) as client:
        model = client.model(spec.name)
        results = _predict(model, samples)
        found = score(spec, samples, results) | {"seed": plan.seed}
        found["skew"] = measure_skew(model, samples[:_SKEW_SAMPLES], results, reference)
    if found["accuracy"] < plan.minimum_accuracy:
        msg = (
            f"{spec.name}: accuracy through the whole path is {found['accuracy']:.3f} on {found['n']} samples,"
            f" below the spec's minimum_accuracy {plan.minimum_accuracy:g}: nothing was published"
        )
        raise ExportError(msg)
    if not found["skew"]["max"] <= MAX_SKEW:
        msg = (
            f"{spec.name}: what is served differs by {found['skew']['max']:.2g} from Keras on the same files"
            f" (allowed: {MAX_SKEW:g}): nothing was published"
        )
        raise ExportError(msg)
    return found


def _predict(model: Model, samples: Sequence[Sample]) -> list[Classification]:
    results = []
    for result in model.predict_many(sample.source for sample in samples):
        if isinstance(result, Rejection):
            msg = f"{model.name}: generated sample {result.index} was not answered: {result.error}"
            raise ExportError(msg) from result.error
        results.append(result)
    return results


def score(spec: Spec, samples: Sequence[Sample], results: Sequence[Classification]) -> dict[str, Any]:
    """Compare findings with what the samples are.

    The most probable label counts; of a single label, the served model's decision.

    Args:
        spec: Names the labels.
        samples: What was sent.
        results: What came back, in the same order.

    Returns:
        n, labels, confusion (rows are the truth, columns the answers) and accuracy.
    """
    names = [label.name for label in spec.labels]
    single = len(names) == 1
    labels = [f"not {names[0]}", names[0]] if single else names
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    for sample, result in zip(samples, results, strict=True):
        if single:
            truth, answer = int(sample.label == names[0]), int(result.top.is_positive)
        else:
            truth, answer = names.index(sample.label), names.index(result.top.label)
        confusion[truth, answer] += 1
    accuracy = float(np.trace(confusion) / max(1, confusion.sum()))
    return {"n": len(samples), "labels": labels, "confusion": confusion.tolist(), "accuracy": accuracy}


def measure_skew(
    model: Model, samples: Sequence[Sample], results: Sequence[Classification], reference: Reference
) -> dict[str, Any]:
    """Largest ``|p(Keras on the SDK's preprocessing) - p(served)|``.

    Args:
        model: The served model.
        samples: Some of what was sent.
        results: What came back; as many or more, in the same order.
        reference: Keras' answers.

    Returns:
        n and max.
    """
    names = [label.name for label in model.contract.labels]
    prepared = [model.prepare(sample.source) for sample in samples]
    batch = {name: np.concatenate([arrays[name] for arrays in prepared]) for name in prepared[0]}
    expected = reference(batch)[PROBABILITIES].astype(np.float64)
    served = [
        {finding.label: finding.probability for finding in result.findings} for result in islice(results, len(samples))
    ]
    differences = np.abs(np.asarray([[row[name] for name in names] for row in served]) - expected)
    return {"n": len(samples), "max": float(differences.max())}
