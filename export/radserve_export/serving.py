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
        count: Instances on each device.
        threads: Intra-op threads of an instance on the CPU.
    """

    kind: Literal["auto", "cpu", "gpu"] = "auto"
    count: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1


class Queue(Block, frozen=True, kw_only=True):
    """Triton's queue policy of each step.

    Attributes:
        max_size: Requests that may wait; more are refused at once.
        timeout_us: Longest wait, microseconds; a request may ask for less.
        max_delay_us: How long the batcher waits for company, microseconds.
        priority_levels: Levels of urgency; 1 is highest.
    """

    max_size: Count = 1024
    timeout_us: Count = 1_000_000
    max_delay_us: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    priority_levels: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3


class Serving(Block, frozen=True, kw_only=True):
    """How Triton runs the model.

    Attributes:
        fuse: One graph for pre-processing, network and post-processing, or three steps.
        max_batch_size: Largest batch; 0 (only ``task: tensors``) means no batch axis.
        instances: Copies of the model.
        queue: What waits, how long and how urgently.
        versions_kept: Versions that stay in the repository, to roll back to.
    """

    fuse: bool = True
    max_batch_size: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 64
    instances: Instances = Instances()
    queue: Queue = Queue()
    versions_kept: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 5
