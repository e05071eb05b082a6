"""Contracts of small models, for tests of the SDK without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radserve.contracts import (
    Code,
    Contract,
    Datatype,
    Evidence,
    FixedWindow,
    ImageInput,
    Label,
    Lead,
    Policy,
    Task,
    TensorSpec,
    TextInput,
    WaveformInput,
    wire_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE = ImageInput(
    modalities=("CT",), rows=4, columns=4, window=FixedWindow(center=40, width=400), absent_attributes=Policy.ACCEPT
)
WAVEFORM = WaveformInput(
    modalities=("ECG",),
    leads=(Lead(name="I", codes=(Code(value="5.6.3-9-1", scheme="SCPECG", meaning="Lead I"),)),),
    sampling_frequency_hz=100,
    samples=1000,
)
TEXT = TextInput(languages=("en", "zh"), max_tokens=8, max_bytes=64)


def contract(
    described: ImageInput | WaveformInput | TextInput = IMAGE,
    *,
    task: Task | None = None,
    names: Sequence[str] = ("normal", "opacity"),
    evidence: Evidence | None = None,
    **changed: Any,
) -> Contract:
    """A contract of two labels: a classifier's, unless another task is given."""
    classification = {ImageInput: Task.IMAGE_CLASSIFICATION, WaveformInput: Task.SIGNAL_CLASSIFICATION}
    kind = task or classification.get(type(described), Task.TEXT_CLASSIFICATION)
    inputs, outputs = wire_tensors(kind, described, 2, evidence)
    standard: dict[str, Any] = {
        "name": "demo",
        "version": 3,
        "task": kind,
        "intended_use": "Tests only",
        "input": described,
        "inputs": inputs,
        "outputs": outputs,
        "max_batch_size": 8,
        "labels": tuple(Label(name=name, code=Code(value=name, scheme="99TEST", meaning=name)) for name in names),
        "evidence": evidence,
        "model_sha256": "0" * 64,
        "exporter_version": "0",
    }
    return Contract(**{**standard, **changed})


def tensors(**changed: Any) -> Contract:
    """A contract of plain tensors."""
    standard: dict[str, Any] = {
        "name": "raw",
        "version": 1,
        "task": Task.TENSORS,
        "inputs": (
            TensorSpec(name="X", dtype=Datatype.FP32, dims=(-1, 2)),
            TensorSpec(name="NOTE", dtype=Datatype.BYTES, dims=(1,)),
        ),
        "outputs": (TensorSpec(name="Y", dtype=Datatype.BYTES, dims=(-1,)),),
        "max_batch_size": 4,
        "model_sha256": "0" * 64,
        "exporter_version": "0",
    }
    return Contract(**{**standard, **changed})


def arrays(**changed: Any) -> dict[str, Any]:
    """Arrays that fit it."""
    return {"X": np.zeros((1, 3, 2), np.float32), "NOTE": np.array([["a"]], dtype=object), **changed}
