"""The ``serving:`` block of an export spec: how Triton runs a model."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of a spec: immutable, and unknown fields are errors."""


class Instances(Block, frozen=True, kw_only=True):
    """Triton's instance group of each step.

    Attributes:
        kind: auto uses GPUs where there are some.
        count: Instances on each device. A single one may wait 500 ms for its next batch, unless ``queue`` is null.
        threads: Intra-op threads of an instance on the CPU.
        gpus: GPUs to use, counted from 0; empty takes all. With ``kind: gpu`` alone.
    """

    kind: Literal["auto", "cpu", "gpu"] = "auto"
    count: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    gpus: tuple[Annotated[int, msgspec.Meta(ge=0, le=255)], ...] = ()

    def __post_init__(self) -> None:
        """Refuse GPUs that could not be used."""
        if self.gpus and self.kind != "gpu":
            msg = "instances.gpus: only kind gpu takes them"
            raise ValueError(msg)
        if len(set(self.gpus)) < len(self.gpus):
            msg = "instances.gpus: one is there twice: count says how many instances each has"
            raise ValueError(msg)


class Queue(Block, frozen=True, kw_only=True):
    """Triton's queue policy of each step.

    Attributes:
        max_size: Requests that may wait; more are refused at once.
        timeout_us: Longest wait, microseconds; a request may ask for less, as the SDK does with its deadline.
        allow_timeout_override: Whether a request may ask for less.
        max_delay_us: How long the batcher waits for company, microseconds.
        priority_levels: Levels of urgency; 1 is highest.
    """

    max_size: Count = 1024
    timeout_us: Annotated[int, msgspec.Meta(ge=1, le=3_600_000_000)] = 30_000_000
    allow_timeout_override: bool = True
    max_delay_us: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    priority_levels: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3


class TensorRt(Block, frozen=True, kw_only=True):
    """How TensorRT builds its engines.

    Attributes:
        workspace_bytes: GPU memory that an engine may use while it runs.
        cache: Folder for built engines, on the server; None builds them anew at each start.
        batch_size: The batch that engines are optimised for; None takes half the largest.
        lengths: Least, best and greatest length of every axis that the model leaves free.
        force: Use it for recurrent layers, too.
    """

    workspace_bytes: Annotated[int, msgspec.Meta(ge=2**20)] = 2**30
    cache: str | None = None
    batch_size: Count | None = None
    lengths: tuple[Count, Count, Count] | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse lengths that do not grow."""
        if self.lengths is not None and list(self.lengths) != sorted(self.lengths):
            msg = "tensorrt.lengths: they must grow, from the least over the best to the greatest"
            raise ValueError(msg)


class LowPrecision(Block, frozen=True, kw_only=True):
    """What a graph in lower precision must still reach; it takes the place of the spec's tolerances.

    Attributes:
        atol: How far any output may be from Keras.
        minimum_agreement: Share of the inputs (the real ones, where there are some)
            whose labels and decisions must be those of Keras.
        calibration_samples: Inputs that set the ranges of static quantization:
            of the spec's generator, or else random ones within ``parity.input_range``.
    """

    atol: Annotated[float, msgspec.Meta(gt=0, le=1)]
    minimum_agreement: Annotated[float, msgspec.Meta(ge=0.5, le=1)]
    calibration_samples: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 128


class Serving(Block, frozen=True, kw_only=True):
    """How Triton runs the model.

    Attributes:
        fuse: One graph for pre-processing, network and post-processing, or three steps.
        max_batch_size: Largest batch; 0 (only ``task: tensors``) means no batch axis.
        instances: Copies of the model.
        queue: What waits, how long and how urgently. With null all requests are alike and may
            wait without limit, and Triton prepares a batch while another one is computed.
        warmup_batch_sizes: Batches of zeros that each instance answers before it is ready.
        versions_kept: Versions that stay in the repository, to roll back to.
        accelerator: What runs the graphs on a GPU.
        precision: fp16 computes in half floats: by TensorRT itself, or else in the graph.
        quantization: static (convolutional networks) or dynamic (recurrent ones, on the
            CPU) makes the network's weights 8-bit integers.
        low_precision: What must still be reached then.
        tensorrt: How its engines are built.
    """

    fuse: bool = True
    max_batch_size: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 64
    instances: Instances = Instances()
    queue: Queue | None = Queue()
    warmup_batch_sizes: Annotated[tuple[Count, ...], msgspec.Meta(max_length=16)] = (1,)
    versions_kept: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 5
    accelerator: Literal["none", "cuda", "tensorrt"] = "none"
    precision: Literal["fp32", "fp16"] = "fp32"
    quantization: Literal["none", "static", "dynamic"] = "none"
    low_precision: LowPrecision | None = None
    tensorrt: TensorRt | None = None

    @property
    def halves_graph(self) -> bool:
        """Whether the graph itself is to compute in half floats."""
        return self.precision == "fp16" and self.accelerator != "tensorrt"

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        problem = self._batch_problem() or self._accelerator_problem() or self._precision_problem()
        if problem is not None:
            raise ValueError(problem)

    def _batch_problem(self) -> str | None:
        if self.max_batch_size and any(size > self.max_batch_size for size in self.warmup_batch_sizes):
            return "warmup_batch_sizes: one is above max_batch_size"
        return None

    def _accelerator_problem(self) -> str | None:
        if self.accelerator != "none" and self.instances.kind == "cpu":
            return f"accelerator: {self.accelerator} needs a GPU, but instances are of kind cpu"
        if self.tensorrt is None:
            return None
        if self.accelerator != "tensorrt":
            return "tensorrt: accelerator is another one"
        best = self.tensorrt.batch_size
        if best is not None and best > self.max_batch_size:
            return "tensorrt.batch_size: it is above max_batch_size"
        return None

    def _precision_problem(self) -> str | None:
        quantised = self.quantization != "none"
        if quantised and self.precision == "fp16":
            return "quantization: it goes with precision fp32"
        if self.quantization == "dynamic" and self.instances.kind != "cpu":
            return "quantization: dynamic runs on the CPU: instances: {kind: cpu}"
        if (quantised or self.halves_graph) != (self.low_precision is not None):
            needed = quantised or self.halves_graph
            if not needed and self.precision == "fp16":
                return "low_precision: TensorRT makes its half floats itself, on the GPU, after the gate: leave it out"
            return f"low_precision: {'say what must still be reached' if needed else 'nothing is in lower precision'}"
        return None
