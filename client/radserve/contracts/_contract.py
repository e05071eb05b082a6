"""The contract: everything a caller must know, told by the model itself."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec

from radserve.contracts._inputs import Combination, EveryImage, ImageInput, TextInput, WaveformInput
from radserve.contracts._reference import Reference
from radserve.contracts._tensors import MAX_TENSOR_BYTES, PROBABILITIES, Code, Name, Struct, TensorSpec
from radserve.contracts._wire import Evidence, Task, wire_tensors
from radserve.errors import ContractError

CONTRACT_PARAMETER = "radserve.contract"
SCHEMA_VERSION = 4
_MAX_BYTES = 2**20

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Tensors = Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1, max_length=64)]


class Label(Struct, frozen=True, kw_only=True):
    """One output of a classifier.

    Attributes:
        name: Its name in results.
        code: What it means, coded.
        category: Of a segmentation's label, what kind of thing it is: Segmented Property
            Category (PS3.16 CID 7150); None where nobody said.
        threshold: Probabilities from here on are positive.
        indeterminate: Probabilities from the first to below the second value are
            neither; it must hold the threshold.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    code: Code
    category: Code | None = None
    threshold: Probability = 0.5
    indeterminate: tuple[Probability, Probability] | None = None

    def __post_init__(self) -> None:
        """Refuse a band that contradicts the threshold."""
        band = self.indeterminate
        if band is not None and not band[0] <= self.threshold <= band[1]:
            msg = f"label {self.name}: the indeterminate band does not hold the threshold"
            raise ValueError(msg)


class Calibration(Struct, frozen=True, kw_only=True):
    """How the served probabilities were calibrated (Guo et al., ICML 2017).

    Attributes:
        temperature: The logits are divided by it; 1 leaves them.
    """

    temperature: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 1.0


class Contract(Struct, frozen=True, kw_only=True, dict=True):
    """A public model's contract.

    Attributes:
        schema_version: Version of this structure.
        name: The public (ensemble) model's name.
        version: The ensemble's version; every publish and rollback makes a new one.
        task: What the model does.
        description: One line for people.
        intended_use: What it may be used for; shown with every answer.
        input: Scope and preprocessing; None for ``task: tensors``.
        inputs: The tensors to send.
        outputs: The tensors that come back.
        max_batch_size: Largest batch of one request; 0 means no batch axis.
        labels: What is told apart: the classifier's outputs in the order of
            PROBABILITIES; of a segmentation, label k is the value k + 1 of LABEL_MAP.
        exclusive: Whether exactly one label applies (softmax).
        calibration: How probabilities were calibrated.
        evidence: The map of an evidence model; None for all others.
        reference: Levels and scores of the population that it was made for; None where
            nobody named inputs of it.
        priorities: False where the server takes all requests alike, so that an urgent one is
            refused; else it is not there.
        model_sha256: Hash of the trained model file.
        exporter_version: radserve version that wrote the model.
    """

    schema_version: int = SCHEMA_VERSION
    name: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    task: Task
    description: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    intended_use: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    input: ImageInput | WaveformInput | TextInput | None = None
    inputs: Tensors
    outputs: Tensors
    max_batch_size: Annotated[int, msgspec.Meta(ge=0, le=4096)]
    labels: Annotated[tuple[Label, ...], msgspec.Meta(max_length=4096)] = ()
    exclusive: bool = False
    calibration: Calibration = Calibration()
    evidence: Evidence | None = None
    reference: Reference | None = None
    priorities: Literal[False] | msgspec.UnsetType = msgspec.UNSET
    model_sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    exporter_version: Annotated[str, msgspec.Meta(max_length=64)]

    def __post_init__(self) -> None:
        """Refuse a contract whose parts contradict each other."""
        if sum(tensor.smallest_bytes for tensor in self.inputs) > MAX_TENSOR_BYTES:
            msg = f"inputs of {self.name} are larger than {MAX_TENSOR_BYTES >> 20} MiB together"
            raise ValueError(msg)
        expected = _expected_tensors(self)
        if expected is None:
            return
        for side, have, want in (("inputs", self.inputs, expected[0]), ("outputs", self.outputs, expected[1])):
            if have != want:
                msg = f"{side} of {self.name} are not those of its task {self.task.value}"
                raise ValueError(msg)
        scored = len(self.labels) if self.outputs[0].name == PROBABILITIES else 0
        if self.reference is not None and len(self.reference.scores) != scored:
            msg = f"reference of {self.name}: {len(self.reference.scores)} distributions of scores, it gives {scored}"
            raise ValueError(msg)

    @cached_property
    def sha256(self) -> str:
        """Hash of the contract, for provenance."""
        return hashlib.sha256(dump_contract(self).encode()).hexdigest()


def _expected_tensors(contract: Contract) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None:
    if contract.task is Task.TENSORS:
        if contract.input is not None or contract.labels or contract.reference is not None:
            msg = "a contract of task tensors has neither input, nor labels, nor reference"
            raise ValueError(msg)
        return None
    if contract.input is None or contract.max_batch_size < 1:
        msg = f"a contract of task {contract.task.value} needs input and a batch axis"
        raise ValueError(msg)
    if bool(contract.labels) != contract.task.has_labels:
        msg = f"a contract of task {contract.task.value} {'needs' if contract.task.has_labels else 'has no'} labels"
        raise ValueError(msg)
    study = contract.input.study if isinstance(contract.input, ImageInput) else None
    is_exclusive = contract.exclusive and contract.task is Task.IMAGE_CLASSIFICATION
    if is_exclusive and isinstance(study, EveryImage) and study.combination is not Combination.MEAN:
        msg = f"of exclusive labels only the mean adds up to 1: write combination: mean, not {study.combination.value}"
        raise ValueError(msg)
    if len({label.name for label in contract.labels}) != len(contract.labels):
        msg = "two labels have the same name"
        raise ValueError(msg)
    return wire_tensors(contract.task, contract.input, len(contract.labels), contract.evidence)


class _Versioned(msgspec.Struct):
    schema_version: int


def parse_contract(text: str | bytes) -> Contract:
    """Read a contract that a server sent.

    Args:
        text: JSON, at most 1 MiB.

    Raises:
        ContractError: It is not a contract, contradicts itself, asks for more
            than this SDK allows, has a newer schema, or has what its schema has not.
    """
    if len(text) > _MAX_BYTES:
        msg = "the model's contract is larger than 1 MiB: export the model again"
        raise ContractError(msg)
    try:
        schema = msgspec.json.decode(text, type=_Versioned).schema_version
        if schema > SCHEMA_VERSION:
            msg = (
                f"the model's contract has schema version {schema}, this SDK reads up to"
                f" {SCHEMA_VERSION}: pip install . in a newer checkout of radserve"
            )
            raise ContractError(msg)
        if schema < 1:
            msg = f"the model's contract has schema version {schema}, which never was: export the model again"
            raise ContractError(msg)
        contract = msgspec.json.decode(text, type=Contract)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        msg = f"the model's contract is malformed ({error}): export the model again"
        raise ContractError(msg) from error
    if later := _later_than(schema, msgspec.json.decode(text)):
        msg = f"the model's contract has schema version {schema}, which has no {later}: export the model again"
        raise ContractError(msg)
    return contract


def _later_than(schema: int, tree: dict[str, Any]) -> str | None:
    """What a contract holds that its schema did not know: an SDK of its time would read it otherwise."""
    described = tree.get("input") or {}
    since: dict[str, tuple[int, bool]] = {
        f"task {tree['task']}": (2, tree["task"] in (Task.IMAGE_SEGMENTATION.value, Task.TEXT_GENERATION.value)),
        "field evidence": (2, "evidence" in tree),
        "field input.crop": (2, "crop" in described),
        "field input.study": (3, "study" in described),
        "field input.resize.pixels": (3, "pixels" in described.get("resize", {})),
        "field reference": (4, "reference" in tree),
        "field priorities": (4, "priorities" in tree),
        "field labels.category": (3, any("category" in label for label in tree.get("labels", ()))),
    }
    return next((what for what, (known, is_there) in since.items() if is_there and schema < known), None)


def dump_contract(contract: Contract) -> str:
    """Write a contract as JSON with sorted keys, the same bytes each time."""
    return msgspec.json.encode(contract, order="sorted").decode()
