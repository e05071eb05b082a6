"""Takes a network to the precision that a spec asks for, and measures what that costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from radserve.contracts import PROBABILITIES, Task
from radserve.errors import ParityError, SpecError
from radserve_export.datasets import to_wire
from radserve_export.graphs import NETWORK_INPUT
from radserve_export.graphs.checked import signature
from radserve_export.graphs.precision import (
    quantise_dynamically,
    quantise_statically,
    recurrent_operators,
    to_half,
)
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.parity import SEED, batch_sizes, random_input
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from radserve_export.network import Arrays, Network
    from radserve_export.parity import Stage
    from radserve_export.spec import Spec
    from radserve_export.tokenizer import TextTokenizer

NOT_MEASURED = "not_measured"
"""Key of a parity report: what none of the manifest's figures is of."""
_BY_TENSORRT = "the fp16 that TensorRT computes on the serving GPU; all figures here are of fp32 on the CPU"
_BATCH = 16
_CALIBRATION_SEED = SEED + 1  # not what the parity gate looks at


def lower_precision(spec: Spec, network: Network, tokenizer: TextTokenizer | None) -> Network:
    """Lower a network's precision before anything is built of it, or measured with it.

    Args:
        spec: Says how.
        network: The converted network.
        tokenizer: That of a text model.

    Raises:
        SpecError: What the spec asks for is not for such a network.
        ConversionError: The graph cannot be converted.
    """
    serving, found = spec.serving, recurrent_operators(network.graph)
    if serving.accelerator == "tensorrt" and found and not (serving.tensorrt and serving.tensorrt.force):
        msg = (
            f"serving.accelerator: TensorRT is not for recurrent layers ({', '.join(found)}):"
            " use cuda, or say tensorrt: {force: true} and compare the answers"
        )
        raise SpecError(msg)
    wanted = serving.low_precision
    if wanted is None:
        return network
    if spec.evidence or spec.task is Task.TEXT_GENERATION:
        msg = (
            "serving.low_precision: evidence maps and generated text are not measured in lower precision: leave it out"
        )
        raise SpecError(msg)
    if serving.quantization == "static":
        if found:
            msg = f"serving.quantization: static is not for recurrent layers ({', '.join(found)}): use dynamic"
            raise SpecError(msg)
        graph = quantise_statically(network.graph, _calibration(spec, network, tokenizer, wanted.calibration_samples))
    elif serving.quantization == "dynamic":
        graph = quantise_dynamically(network.graph)
    else:
        graph = to_half(network.graph)
    return replace(network, graph=graph)


def tolerant(spec: Spec) -> Spec:
    """The spec with the tolerance that the parity gate is to use."""
    wanted = spec.serving.low_precision
    if wanted is None:
        return spec
    parity = msgspec.structs.replace(spec.parity, atol=wanted.atol, rtol=0.0, outputs={})
    return msgspec.structs.replace(spec, parity=parity)


def _calibration(spec: Spec, network: Network, tokenizer: TextTokenizer | None, count: int) -> Iterator[Arrays]:
    """Inputs of the network: those of the spec's generator, or else random ones."""
    plan = spec.training or spec.evaluation
    inputs, _ = signature(network.graph)
    if plan is None or spec.task is Task.TENSORS or tokenizer is not None:
        rng = np.random.default_rng(_CALIBRATION_SEED)
        vocabulary = network.vocabulary if tokenizer is None else min(tokenizer.vocabulary, network.vocabulary or 2**31)
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            limits = spec.parity.input_range
            yield {
                one.name: random_input(
                    one,
                    size,
                    rng,
                    vocabulary=vocabulary if one.dtype.numpy.kind in "iu" else None,
                    limits=limits,
                )
                for one in inputs
            }
        return
    rows: list[NDArray[np.generic]] = []
    for sample in generate(plan.generator, count, seed=_CALIBRATION_SEED, split=Split.TRAIN):
        rows.append(to_wire(spec, sample.source.encode() if isinstance(sample.source, str) else sample.source))
        if len(rows) == _BATCH:
            yield _scaled(spec, rows)
            rows = []
    if rows:
        yield _scaled(spec, rows)


def _scaled(spec: Spec, rows: Sequence[NDArray[np.generic]]) -> Arrays:
    return {NETWORK_INPUT: preprocess_reference(np.stack(rows), spec.network_input)}


def measure_precision(stages: Sequence[Stage], spec: Spec, report: dict[str, Any]) -> dict[str, Any]:
    """Compare the labels of a network in lower precision with those of Keras.

    Args:
        stages: What the parity gate compared; the last one is the whole model.
        spec: What must be reached; without ``low_precision`` nothing is measured.
        report: What the gate measured.

    Returns:
        The report, with what was measured, and with what cannot be here.

    Raises:
        ParityError: Too many labels are others.
    """
    if spec.serving.precision == "fp16" and not spec.serving.halves_graph:
        return report | {NOT_MEASURED: _BY_TENSORRT}
    wanted = spec.serving.low_precision
    if wanted is None:
        return report
    stage = stages[-1]
    batches = stage.real or tuple(stage._replace(real=()).batches(batch_sizes(spec.serving.max_batch_size)))
    same = [_same(stage.outputs, stage.exported(feeds), stage.reference(feeds), spec) for _, feeds in batches]
    agreement = float(np.concatenate(same).mean())
    measured = {
        "precision": spec.serving.precision,
        "quantization": spec.serving.quantization,
        "inputs": sum(map(len, same)),
        "real": bool(stage.real),
        "agreement": agreement,
    }
    # The gate's own shares of equal labels allow for its tolerance, which is wide here: they would tell nothing.
    outputs = {name: {**entry, "argmax_agreement": None} for name, entry in report["outputs"].items()}
    report = report | {"outputs": outputs, "low_precision": measured}
    if not agreement >= wanted.minimum_agreement:
        msg = (
            f"{spec.name}: in lower precision {agreement:.1%} of {measured['inputs']} inputs get the label that Keras"
            f" gives, below low_precision.minimum_agreement {wanted.minimum_agreement:g}: nothing was published"
        )
        raise ParityError(msg, report)
    return report


def _same(outputs: Sequence[str], got: Arrays, want: Arrays, spec: Spec) -> NDArray[np.bool_]:
    """Which rows have the same decisions, and the same largest value where only one label can apply.

    A single number has no label: there, the rows that are as near as the gate of full precision asks for.
    """
    rows = len(want[outputs[0]])
    same: NDArray[np.bool_] = np.ones(rows, bool)
    for name in outputs:
        values = want[name]
        if values.dtype.kind in "iub":
            same &= (got[name] == values).reshape(rows, -1).all(axis=1)
        elif values.ndim > 1 and values.shape[-1] > 1:
            if name != PROBABILITIES or spec.exclusive:
                same &= (got[name].argmax(-1) == values.argmax(-1)).reshape(rows, -1).all(axis=1)
        elif name != PROBABILITIES:  # a single label's decision is compared above
            wanted = values.astype(np.float64)
            near = np.abs(got[name] - wanted) <= spec.parity.allowed(name, wanted)
            same &= near.reshape(rows, -1).all(axis=1)
    return same
