"""Tasks, and the tensors that a model of each takes and gives."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from radserve.contracts._inputs import ImageInput, TextInput, WaveformInput, WholeVolume
from radserve.contracts._tensors import (
    DECISIONS,
    EVIDENCE,
    GENERATED_TEXT,
    IS_COMPLETE,
    LABEL_MAP,
    LOG_PROBABILITY,
    PIXELS,
    PROBABILITIES,
    SAMPLES,
    TEXT,
    TOKEN_COUNT,
    Datatype,
    Struct,
    TensorSpec,
)

_Edge = Annotated[float, msgspec.Meta(ge=-16384, le=16384)]
_MAX_SEGMENTS = 254  # LABEL_MAP is uint8, 0 is the background, and 255 a pixel without an answer
Tensors = tuple[TensorSpec, ...]


class Task(str, Enum):
    """What a model does."""

    IMAGE_CLASSIFICATION = "image_classification"
    SIGNAL_CLASSIFICATION = "signal_classification"
    TEXT_CLASSIFICATION = "text_classification"
    IMAGE_SEGMENTATION = "image_segmentation"
    TEXT_GENERATION = "text_generation"
    TENSORS = "tensors"

    @property
    def has_labels(self) -> bool:
        """Whether such a model tells labels apart."""
        return self not in (Task.TEXT_GENERATION, Task.TENSORS)


class Evidence(Struct, frozen=True, kw_only=True):
    """The map of an evidence model: Grad-CAM (Selvaraju et al., ICCV 2017) of the most probable label.

    Attributes:
        rows: Height of the map: that of the last convolution.
        columns: Its width.
        layer: The convolution's name.
        region: Top, left, bottom and right of the part of the wire's image that the
            map's cells cover evenly, in pixels; None is the whole image.
    """

    rows: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    columns: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    layer: Annotated[str, msgspec.Meta(max_length=256)]
    region: tuple[_Edge, _Edge, _Edge, _Edge] | None = None

    def __post_init__(self) -> None:
        """Refuse a part turned upside down."""
        if self.region is not None and not (self.region[0] < self.region[2] and self.region[1] < self.region[3]):
            msg = "evidence: the region's end does not lie behind its start"
            raise ValueError(msg)


def wire_tensors(
    task: Task,
    described: ImageInput | WaveformInput | TextInput,
    label_count: int,
    evidence: Evidence | None = None,
) -> tuple[Tensors, Tensors]:
    """The tensors that a public model of this task takes and gives.

    Args:
        task: Any task but tensors.
        described: The input block that belongs to the task.
        label_count: Number of labels.
        evidence: The map of an evidence model.

    Returns:
        Inputs and outputs, shapes without the batch axis.

    Raises:
        ValueError: The input block is not that of the task, there are more
            labels than it can tell apart, or it has no evidence map.
    """
    if evidence is not None and task is not Task.IMAGE_CLASSIFICATION:
        msg = f"task {task.value} has no evidence map"
        raise ValueError(msg)
    if isinstance(described, ImageInput) and task in (Task.IMAGE_CLASSIFICATION, Task.IMAGE_SEGMENTATION):
        return _of_images(task, described, label_count, evidence)
    if isinstance(described, WaveformInput) and task is Task.SIGNAL_CLASSIFICATION:
        samples = _tensor(SAMPLES, described.wire_dtype, described.samples, len(described.leads))
        return (samples,), _classified(label_count)
    if isinstance(described, TextInput):
        text, count = _tensor(TEXT, "BYTES", 1), _tensor(TOKEN_COUNT, "INT32", 1)
        if task is Task.TEXT_CLASSIFICATION:
            return (text,), (*_classified(label_count), count)
        if task is Task.TEXT_GENERATION:
            told = (_tensor(IS_COMPLETE, "BOOL", 1), _tensor(LOG_PROBABILITY, "FP32", 1))
            return (text,), (_tensor(GENERATED_TEXT, "BYTES", 1), *told, count)
    msg = f"task {task.value} does not take an input of this kind"
    raise ValueError(msg)


def _of_images(
    task: Task, described: ImageInput, label_count: int, evidence: Evidence | None
) -> tuple[Tensors, Tensors]:
    pixels = _tensor(PIXELS, described.wire_dtype, *described.grid, described.channels)
    if task is Task.IMAGE_CLASSIFICATION:
        if evidence is not None and isinstance(described.study, WholeVolume):
            msg = "a volume has no evidence map"
            raise ValueError(msg)
        extra = (_tensor(EVIDENCE, "FP32", evidence.rows, evidence.columns),) if evidence else ()
        return (pixels,), (*_classified(label_count), *extra)
    if label_count > _MAX_SEGMENTS:
        msg = f"a label map tells at most {_MAX_SEGMENTS} labels apart"
        raise ValueError(msg)
    return (pixels,), (_tensor(LABEL_MAP, "UINT8", *described.grid),)


def _classified(label_count: int) -> Tensors:
    return _tensor(PROBABILITIES, "FP32", label_count), _tensor(DECISIONS, "INT8", label_count)


def _tensor(name: str, dtype: str, *dims: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=Datatype(dtype), dims=dims)
