"""Accuracy and skew through the whole path: file, SDK, Triton, finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from radserve import Client, Rejection
from radserve.contracts import Task
from radserve.errors import ExportError, MissingExtraError
from radserve_export.evaluate import _classification, _generation, _segmentation
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from radserve import Model, Result
    from radserve_export.reference import Reference
    from radserve_export.spec import Spec
    from radserve_export.synthetic import Sample

MAX_SKEW = 1e-4
_SKEW_SAMPLES = 200
_TIMEOUT_S = 60.0


class Measures(NamedTuple):
    """What is measured of a task's models.

    Attributes:
        score: From the spec, the samples and the results in the same order: n, the
            spec's metric, and what else belongs into the manifest.
        skew: From the served model, samples, their results and Keras' answers: n, and
            ``max``, how far what is served is from Keras on the same files.
    """

    score: Callable[[Spec, Sequence[Sample], Sequence[Any]], dict[str, Any]]
    skew: Callable[[Model, Sequence[Sample], Sequence[Any], Reference], dict[str, Any]]


_CLASSIFICATION = Measures(_classification.score, _classification.measure_skew)
_MEASURES = {
    Task.IMAGE_CLASSIFICATION: _CLASSIFICATION,
    Task.SIGNAL_CLASSIFICATION: _CLASSIFICATION,
    Task.TEXT_CLASSIFICATION: _CLASSIFICATION,
    Task.TEXT_GENERATION: Measures(_generation.score, _generation.measure_skew),
    Task.IMAGE_SEGMENTATION: Measures(_segmentation.score, _segmentation.measure_skew),
}


def evaluate(staged: Path, spec: Spec, reference: Reference) -> dict[str, Any]:
    """Serve a repository and send it fresh samples.

    Args:
        staged: A repository that holds the model.
        spec: Names the samples and what must be reached.
        reference: The same answers, computed by Keras.

    Returns:
        What is measured of such a model, the seed and the skew.

    Raises:
        MissingExtraError: There is no embedded server.
        ExportError: A sample was refused, too few answers are right, or what is
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
    measures = _MEASURES[spec.task]
    samples = list(generate(plan.generator, plan.samples, seed=plan.seed, split=Split.TEST))
    with EmbeddedServer(staged) as server, Client(server.grpc_url, timeout_s=_TIMEOUT_S) as client:
        model = client.model(spec.name)
        results = _predict(model, samples)
        found = measures.score(spec, samples, results) | {"seed": plan.seed, "metric": spec.metric}
        found["skew"] = measures.skew(model, samples[:_SKEW_SAMPLES], results[:_SKEW_SAMPLES], reference)
    if not found[spec.metric] >= plan.minimum:
        msg = (
            f"{spec.name}: {spec.metric} through the whole path is {found[spec.metric]:.3f} on {found['n']} samples,"
            f" below the spec's minimum_{spec.metric} {plan.minimum:g}: nothing was published"
        )
        raise ExportError(msg)
    if not found["skew"]["max"] <= MAX_SKEW:
        msg = (
            f"{spec.name}: what is served differs by {found['skew']['max']:.2g} from Keras on the same files"
            f" (allowed: {MAX_SKEW:g}): nothing was published"
        )
        raise ExportError(msg)
    return found


def _predict(model: Model, samples: Sequence[Sample]) -> list[Result]:
    results = []
    for result in model.predict_many(sample.source for sample in samples):
        if isinstance(result, Rejection):
            msg = f"{model.name}: generated sample {result.index} was not answered: {result.error}"
            raise ExportError(msg) from result.error
        results.append(result)
    return results
