"""How good a text generator is."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.contracts import LOG_PROBABILITY
from radserve_export.graphs import GENERATED_IDS
from radserve_export.graphs.decoding import MARGIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radserve import GeneratedText, Model
    from radserve_export.reference import Reference
    from radserve_export.spec import Spec
    from radserve_export.synthetic import Sample

_TIE = 1e-4


def score(spec: Spec, samples: Sequence[Sample], results: Sequence[GeneratedText]) -> dict[str, Any]:  # noqa: ARG001 - all measures take the spec
    """Compare texts with what the samples say must come: every character counts.

    Args:
        spec: The spec.
        samples: What was sent.
        results: What came back, in the same order.

    Returns:
        n, exact_match (the share of texts that are complete and equal), and complete, the share of complete ones.
    """
    complete = np.array([result.is_complete for result in results])
    equal = np.array([result.text == sample.expected for sample, result in zip(samples, results, strict=True)])
    return {
        "n": len(samples),
        "exact_match": float((equal & complete).mean()),
        "complete": float(complete.mean()),
    }


def measure_skew(
    model: Model[GeneratedText], samples: Sequence[Sample], results: Sequence[GeneratedText], reference: Reference
) -> dict[str, Any]:
    """Largest ``|log p(Keras) - log p(served)|`` of a text.

    Where the texts differ, it is infinite; but where Keras itself all but tossed a coin, the text is left out.

    Args:
        model: The served model.
        samples: Some of what was sent.
        results: What came back; as many or more, in the same order.
        reference: Keras' answers.

    Returns:
        n, max, and ties, the number of texts left out.
    """
    prepared = [model.prepare(sample.source) for sample in samples]
    expected = reference({name: np.concatenate([arrays[name] for arrays in prepared]) for name in prepared[0]})
    texts = reference.texts(expected[GENERATED_IDS].astype(np.int32))
    worst, ties = 0.0, 0
    for result, text, told, margin in zip(
        islice(results, len(samples)), texts, expected[LOG_PROBABILITY][:, 0], expected[MARGIN][:, 0], strict=True
    ):
        if result.text == text:
            worst = max(worst, abs(result.log_probability - float(told)))
        elif margin < _TIE:
            ties += 1
        else:
            worst = float("inf")
    return {"n": len(samples), "max": worst, "ties": ties}
