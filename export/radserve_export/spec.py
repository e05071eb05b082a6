"""The export spec: one YAML file that says how a trained model becomes a served one."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np

from radserve.contracts import EVIDENCE, Calibration, ImageInput, Label, Task, TextInput, WaveformInput, wire_tensors
from radserve.errors import SpecError
from radserve_export.serving import Block, Serving
from radserve_export.spec_data import Calibrate, Evaluation, Generated, ReferenceInputs
from radserve_export.spec_fields import in_words
from radserve_export.synthetic import labels
from radserve_export.yaml_file import read_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_LARGEST = 1e9
_METRICS = {Task.IMAGE_SEGMENTATION: "dice", Task.TEXT_GENERATION: "exact_match"}

PublicName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=64)]


class NetworkInput(Block, frozen=True, kw_only=True):
    """From wire integers to what the network was trained on: ``(wire * scale - mean) / std``.

    Attributes:
        scale: Factor on the wire's integers.
        mean: Subtracted after scaling: one value, or one a channel (last axis).
        std: Divisor after that: one value, or one a channel.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuse what would make every input the same, or none a number."""
        if not self.scale or not all(map(math.isfinite, (self.scale, *self.mean, *self.std))):
            msg = "network_input: scale must not be 0, and scale, mean and std must be finite"
            raise ValueError(msg)


class Tolerance(Block, frozen=True, kw_only=True):
    """How far an output may be from Keras: ``|a - b| <= atol + rtol * |b|``.

    Attributes:
        atol: Absolute tolerance.
        rtol: Relative tolerance.
    """

    atol: Annotated[float, msgspec.Meta(gt=0, le=0.01)] = 1e-5
    rtol: Annotated[float, msgspec.Meta(ge=0, le=0.01)] = 1e-4

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        if not (math.isfinite(self.atol) and math.isfinite(self.rtol)):
            msg = "atol and rtol must be finite: a gate that lets all pass is none"
            raise ValueError(msg)


_OWN_TOLERANCES = {EVIDENCE: Tolerance(atol=1e-3, rtol=0)}


class OutputTolerance(Block, frozen=True, kw_only=True):
    """The tolerance of a single output; what is left out is as for the others.

    Attributes:
        atol: Absolute tolerance.
        rtol: Relative tolerance.
    """

    atol: Annotated[float, msgspec.Meta(gt=0, le=0.01)] | None = None
    rtol: Annotated[float, msgspec.Meta(ge=0, le=0.01)] | None = None


class Parity(Tolerance, frozen=True, kw_only=True):
    """How far the exported graphs may be from Keras, and on what they are compared.

    Attributes:
        atol: Absolute tolerance of every output that is not named below.
        rtol: Relative tolerance of these.
        outputs: Tolerances of single outputs, by name; the network's own is NETWORK_OUTPUT.
            Not named, EVIDENCE has an absolute one of 1e-3: it is divided by its largest value.
        input_range: Lowest and highest value of the random inputs; None takes all
            that the wire's type can carry (floats: normal with deviation 1).
        data: Real inputs to compare on beside random ones, relative to the spec file:
            a folder of DICOM files, or of ``.txt`` files for a text model; for
            ``task: tensors`` an ``.npz`` with an array for each input. None
            takes generated ones where the spec names a generator.
    """

    outputs: dict[str, OutputTolerance] = {}  # noqa: RUF012 - msgspec copies it
    input_range: tuple[float, float] | None = None
    data: str | None = None

    def of(self, output: str) -> Tolerance:
        """The tolerance of an output."""
        others = _OWN_TOLERANCES.get(output, self)
        own = self.outputs.get(output, OutputTolerance())
        return Tolerance(
            atol=others.atol if own.atol is None else own.atol, rtol=others.rtol if own.rtol is None else own.rtol
        )

    def allowed(self, output: str, want: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far each value of an output may be from what is wanted."""
        tolerance = self.of(output)
        return tolerance.atol + tolerance.rtol * np.abs(want)

    def __post_init__(self) -> None:
        """Refuse a range turned upside down."""
        super().__post_init__()
        if self.input_range is not None and not -_LARGEST <= self.input_range[0] < self.input_range[1] <= _LARGEST:
            msg = "input_range: the lowest value is not below the highest, or beyond 1e9"
            raise ValueError(msg)


class Generation(Block, frozen=True, kw_only=True):
    """How a text generator chooses its tokens.

    Attributes:
        start: The token that every text begins with.
        end: The token that ends it.
        max_tokens: Longest text, in tokens.
        beams: Texts followed at the same time; 1 is greedy.
        length_penalty: Finished beams are compared by log probability divided by length to this power.
    """

    start: str
    end: str
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    beams: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    length_penalty: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0


class Spec(Block, frozen=True, kw_only=True):
    """An export spec.

    Only ``name``, ``task`` and ``model`` are needed for ``task: tensors``.

    Attributes:
        name: The public model's name.
        task: What the model does.
        model: The trained model, relative to the spec file.
        description: One line for people.
        intended_use: What it may be used for; shown with every answer.
        input: Scope and client-side preprocessing; it becomes the contract's.
        network_input: Server-side scaling.
        network_output: Whether the network ends in its activation, or gives logits.
        labels: The network's outputs in their order.
        exclusive: Whether exactly one label applies (softmax); else each is on its own (sigmoid).
        calibration: Temperature of the probabilities.
        calibrate: Held-out data to fit the temperature on.
        reference: Inputs of the population that the model is made for: the contract then holds
            the distributions of their levels and scores, which those of later inputs are
            compared with. Without it nobody can see that inputs drift.
        evidence: Whether an image classifier also gets a second public model, NAME_evidence,
            which shows where it looked.
        generation: How a text generator chooses its tokens.
        tokenizer: ``tokenizer.json``, relative to the spec file (text models); None
            where the model itself begins with a text layer.
        parity: Tolerance of the parity gate.
        serving: How Triton runs it.
        training: Data of the reference training.
        evaluation: What must be reached through the whole path.
    """

    name: PublicName
    task: Task
    model: str
    description: str = ""
    intended_use: str = ""
    input: ImageInput | WaveformInput | TextInput | None = None
    network_input: NetworkInput = NetworkInput()
    network_output: Literal["probabilities", "logits"] = "probabilities"
    labels: tuple[Label, ...] = ()
    exclusive: bool = False
    calibration: Calibration = Calibration()
    calibrate: Calibrate | None = None
    reference: ReferenceInputs | None = None
    evidence: bool = False
    generation: Generation | None = None
    tokenizer: str | None = None
    parity: Parity = Parity()
    serving: Serving = Serving()
    training: Generated | None = None
    evaluation: Evaluation | None = None

    @property
    def metric(self) -> str:
        """What such a model is measured by: accuracy, dice or exact_match."""
        return _METRICS.get(self.task, "accuracy")


def load_spec(path: Path) -> Spec:
    """Read a spec file.

    Args:
        path: A YAML file.

    Raises:
        SpecError: It cannot be read, is not YAML, a field is wrong, or fields
            contradict one another; the message names the field, or line and column.
    """
    content = None
    try:
        content = read_yaml(path)
        spec = msgspec.convert(content, Spec, builtin_types=(dt.datetime, dt.date))
    except OSError as error:
        msg = f"cannot read the spec {path}: {error.strerror}"
        raise SpecError(msg) from error
    except (msgspec.ValidationError, RecursionError) as error:
        told = in_words(str(error), content, Spec)
        msg = f"{path} is not an export spec: {told} (export/specs/README.md lists all fields)"
        raise SpecError(msg) from error
    problem = _contradiction(spec)
    if problem is not None:
        msg = f"{path}: {problem}"
        raise SpecError(msg)
    return spec


def _contradiction(spec: Spec) -> str | None:  # noqa: PLR0911 - one return for each rule
    """The first thing in a spec that its single fields do not show to be wrong."""
    if spec.task is Task.TENSORS:
        own = {"name", "task", "model", "description", "intended_use", "parity", "serving"}
        plain = Spec(name=spec.name, task=spec.task, model=spec.model)
        unwanted = [
            name for name in spec.__struct_fields__ if name not in own and getattr(spec, name) != getattr(plain, name)
        ]
        return f"task tensors takes no {unwanted[0]}" if unwanted else None
    if spec.input is None:
        return f"task {spec.task.value} needs input"
    if bool(spec.labels) != spec.task.has_labels:
        return f"task {spec.task.value} {'needs' if spec.task.has_labels else 'takes no'} labels"
    try:
        wire_tensors(spec.task, spec.input, len(spec.labels))
    except ValueError as error:
        return f"input: {error}"
    names = [label.name for label in spec.labels]
    if len(set(names)) != len(names):
        return "labels: two have the same name"
    if spec.serving.max_batch_size == 0:
        return "serving.max_batch_size: 0 is for task tensors alone"
    # In a segmentation the background is a class, too.
    if spec.exclusive and len(names) == 1 and spec.task is not Task.IMAGE_SEGMENTATION:
        return "exclusive: exactly one label can only apply where there are at least two"
    return _wrong_extras(spec) or _wrong_evaluation(spec, names) or _wrong_scaling(spec)


def _wrong_extras(spec: Spec) -> str | None:
    """Parts that some tasks need, and others do not have."""
    if spec.tokenizer is not None and not isinstance(spec.input, TextInput):
        return "tokenizer: only a text model has one"
    if spec.tokenizer is None and spec.task is Task.TEXT_GENERATION:
        return "tokenizer: a text generator needs one"
    if (spec.task is Task.TEXT_GENERATION) != (spec.generation is not None):
        return f"generation: task {spec.task.value} {'takes none' if spec.generation else 'needs it'}"
    if spec.evidence and spec.task is not Task.IMAGE_CLASSIFICATION:
        return f"evidence: task {spec.task.value} has no evidence map"
    return _wrong_calibration(spec) or _wrong_reference(spec)


def _wrong_calibration(spec: Spec) -> str | None:  # noqa: PLR0911 - one return for each rule
    plan = spec.calibrate
    if plan is None:
        return None
    if spec.metric != "accuracy":
        return f"calibrate: task {spec.task.value} has no probabilities"
    if (plan.labels is not None and plan.data is None) or (plan.data is not None and plan.seed):
        return "calibrate: labels belong to data, a seed to a generator"
    if spec.calibration != Calibration():
        return "calibrate: it fits the temperature that calibration gives: leave one of them out"
    others = {"training": spec.training, "evaluation": spec.evaluation}
    for name, other in others.items():
        if other is not None and (plan.generator, plan.seed) == (other.generator, other.seed):
            return f"calibrate.seed: the same data as in {name}: choose another seed"
    if plan.generator is None:
        return None
    try:
        unknown = [label for label in labels(plan.generator) if label not in [known.name for known in spec.labels]]
    except SpecError as error:
        return f"calibrate.generator: {error}"
    if unknown:
        return f"calibrate.generator: it also gives {unknown[0]}, which is no label here: name data instead"
    return None


def _wrong_reference(spec: Spec) -> str | None:
    plan = spec.reference
    if plan is None or plan.generator is None:
        return "reference: a seed belongs to a generator" if plan is not None and plan.seed else None
    try:
        labels(plan.generator)
    except SpecError as error:
        return f"reference.generator: {error}"
    return None


def _wrong_evaluation(spec: Spec, names: list[str]) -> str | None:
    if spec.evaluation is None:
        return None
    fields = spec.evaluation.__struct_fields__
    given = [name for name in fields if name.startswith("minimum_") and getattr(spec.evaluation, name) is not None]
    if given != [f"minimum_{spec.metric}"]:
        return f"evaluation: task {spec.task.value} is measured by minimum_{spec.metric}"
    try:
        unknown = [label for label in labels(spec.evaluation.generator) if label not in names]
    except SpecError as error:
        return f"evaluation.generator: {error}"
    if not unknown:
        return None
    return f"evaluation.generator: it also gives {unknown[0]}, which is no label here: leave the evaluation block out"


def _wrong_scaling(spec: Spec) -> str | None:
    if isinstance(spec.input, TextInput):
        is_plain = spec.network_input == NetworkInput()
        return None if is_plain else "network_input: a text model takes token ids as they are"
    channels = len(spec.input.leads) if isinstance(spec.input, WaveformInput) else getattr(spec.input, "channels", 1)
    for name in ("mean", "std"):
        count = len(getattr(spec.network_input, name))
        if count not in (1, channels):
            return f"network_input.{name}: {count} values for {channels} channels: give one, or one for each"
    return None
