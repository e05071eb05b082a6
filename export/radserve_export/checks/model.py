"""A model folder as it was read, and what can be said about one."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeAlias

import onnx
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2 as pb

from radserve_export.checks.pbtxt import Field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from radserve_export.triton_config import ModelConfig

Problem: TypeAlias = tuple[int, str]
"""The line of a configuration, and what is wrong there."""

# A platform's backend, and the file that Triton looks for; more than one where any of them will do.
_PLATFORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tensorrt_plan": ("tensorrt", ("model.plan",)),
    "tensorflow_graphdef": ("tensorflow", ("model.graphdef",)),
    "tensorflow_savedmodel": ("tensorflow", ("model.savedmodel",)),
    "onnxruntime_onnx": ("onnxruntime", ("model.onnx",)),
    "pytorch_libtorch": ("pytorch", ("model.pt",)),
}
_BACKENDS: dict[str, tuple[str, ...]] = {
    "tensorrt": ("model.plan",),
    "onnxruntime": ("model.onnx",),
    "pytorch": ("model.pt", "model.py"),
    "openvino": ("model.xml",),
    "python": ("model.py",),
    "dali": ("model.dali", "dali.py"),
    "vllm": ("model.json",),
}
# Further ones of Triton's, whose files are not looked for.
_OTHER_BACKENDS = ("tensorflow", "fil", "tensorrtllm", "armnn_tflite", "paddle", "identity", "repeat", "square")
_TYPES = {
    TensorProto.BOOL: pb.TYPE_BOOL,
    TensorProto.UINT8: pb.TYPE_UINT8,
    TensorProto.UINT16: pb.TYPE_UINT16,
    TensorProto.UINT32: pb.TYPE_UINT32,
    TensorProto.UINT64: pb.TYPE_UINT64,
    TensorProto.INT8: pb.TYPE_INT8,
    TensorProto.INT16: pb.TYPE_INT16,
    TensorProto.INT32: pb.TYPE_INT32,
    TensorProto.INT64: pb.TYPE_INT64,
    TensorProto.FLOAT16: pb.TYPE_FP16,
    TensorProto.FLOAT: pb.TYPE_FP32,
    TensorProto.DOUBLE: pb.TYPE_FP64,
    TensorProto.BFLOAT16: pb.TYPE_BF16,
    TensorProto.STRING: pb.TYPE_STRING,
}


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """Something wrong.

    Attributes:
        file: Where, relative to the repository.
        line: On which line, from 1.
        message: What.
    """

    file: str
    line: int = 1
    message: str


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor as a configuration or a graph describes it.

    Attributes:
        kind: Triton's data type; 0 is none of Triton's.
        dims: Its axes, -1 where the length is free.
        batched: Whether an axis of the batch comes in front of these.
    """

    kind: int
    dims: tuple[int, ...]
    batched: bool

    def __str__(self) -> str:
        name = pb.DataType.Name(self.kind).removeprefix("TYPE_")
        return f"{'of another type' if name == 'INVALID' else name} {list(self.dims)}"

    def fits(self, other: Tensor) -> bool:
        """Whether one can be the other: same type, and no two lengths that differ; as Triton compares them."""
        return self.kind == other.kind and (
            same_dims(self.dims, other.dims) or same_dims(self._full_dims(), other._full_dims())
        )

    def _full_dims(self) -> tuple[int, ...]:
        return (-1, *self.dims) if self.batched else self.dims


def same_dims(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes agree wherever both are known."""
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model folder, read.

    Attributes:
        config: Its configuration.
        versions: Its version folders.
        graphs: Graph by version, of those that have one.
        labels: Lines of its label files, by file name.
        text: Where in its text each field stands.
    """

    config: ModelConfig
    versions: tuple[int, ...]
    graphs: Mapping[int, onnx.ModelProto] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: Field = field(default_factory=Field)

    @property
    def is_ensemble(self) -> bool:
        """Whether it consists of steps."""
        return bool(self.config.HasField("ensemble_scheduling")) or self.config.platform == "ensemble"

    def served(self) -> tuple[int, ...]:
        """Versions that its policy serves, of those that are there."""
        policy = self.config.version_policy
        chosen = policy.WhichOneof("policy_choice")
        if chosen == "all":
            return self.versions
        if chosen == "specific":
            return tuple(version for version in self.versions if version in policy.specific.versions)
        count = policy.latest.num_versions if chosen == "latest" else 1
        return tuple(sorted(self.versions)[-count:]) if count else ()

    def tensors(self, side: str) -> dict[str, Tensor] | None:
        """Its inputs or outputs by name; None where the server is to find them out.

        Args:
            side: ``input`` or ``output``.
        """
        batched = self.config.max_batch_size > 0
        configured = getattr(self.config, side)
        if configured:
            return {one.name: Tensor(kind=one.data_type, dims=tuple(one.dims), batched=batched) for one in configured}
        graph = next(iter(self.graphs.values()), None)
        return None if graph is None else graph_tensors(graph, side, batched=batched)


def graph_tensors(model: onnx.ModelProto, side: str, *, batched: bool) -> dict[str, Tensor]:
    """A graph's inputs or outputs by name.

    Args:
        model: The graph.
        side: ``input`` or ``output``.
        batched: Whether the first axis is the batch, and left out.
    """
    constants = {initializer.name for initializer in model.graph.initializer}
    found = {}
    for value in getattr(model.graph, side):
        if value.name in constants:
            continue
        described = value.type.tensor_type
        axes = [int(axis.dim_value) if axis.HasField("dim_value") else -1 for axis in described.shape.dim]
        kind = _TYPES.get(described.elem_type, pb.TYPE_INVALID)
        found[value.name] = Tensor(kind=kind, dims=tuple(axes[1:] if batched else axes), batched=batched)
    return found


def backend_of(config: ModelConfig) -> tuple[str, tuple[str, ...]] | None:
    """A configuration's backend, and the model files that it may load; None if it names none.

    Returns:
        No files where the backend's are not known here.
    """
    platform, backend = config.platform, config.backend
    if platform in _PLATFORMS:
        name, files = _PLATFORMS[platform]
    elif backend or platform:
        name = backend or platform
        files = _BACKENDS.get(backend, ())
    else:
        return None
    return name, (config.default_model_filename,) if config.default_model_filename else files


def is_known_backend(name: str) -> bool:
    """Whether Triton comes with such a backend, or its project maintains one."""
    return name in _BACKENDS or name in _OTHER_BACKENDS


def similar_backend(name: str) -> str | None:
    """The backend that may have been meant by a name that is none."""
    if name in _PLATFORMS:
        return _PLATFORMS[name][0]
    known = (*_BACKENDS, *_OTHER_BACKENDS)
    longer = [one for one in known if name and one.startswith(name.lower())]
    return next(iter(longer or get_close_matches(name.lower(), known, n=1)), None)


def is_known_platform(platform: str) -> bool:
    """Whether Triton has such a platform."""
    return platform in _PLATFORMS or platform == "ensemble"


def model_files() -> set[str]:
    """Names by which Triton finds models whose configuration names no backend."""
    return {file for files in _BACKENDS.values() for file in files} | {
        file for _, files in _PLATFORMS.values() for file in files
    }
