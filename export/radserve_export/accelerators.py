"""Triton's execution accelerators, and the shapes that TensorRT builds its engines for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.contracts import Datatype
from radserve.errors import SpecError
from radserve_export.serving import TensorRt

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    from radserve.contracts import TensorSpec
    from radserve_export.ensemble import Step
    from radserve_export.serving import Serving

# Of a step that TensorRT cannot begin with, it would see a part, whose inputs have other names.
_TAKEN = (Datatype.FP32, Datatype.FP16, Datatype.INT32, Datatype.INT64, Datatype.UINT8, Datatype.BOOL)


def add_accelerator(config: ModelConfig, step: Step, serving: Serving) -> None:
    """Ask for the accelerator of a spec.

    TensorRT runs the step with the network alone where that is a step of its
    own; without profiles it would build an engine for each new shape.

    Args:
        config: The step's configuration; it is changed.
        step: A step with a graph.
        serving: Which accelerator, and how.

    Raises:
        SpecError: TensorRT does not take the step's inputs.
    """
    accelerators = config.optimization.execution_accelerators
    if serving.accelerator == "cuda":
        accelerators.gpu_execution_accelerator.add(name="cuda")
        return
    if step.name.endswith(("_preprocess", "_postprocess")):
        return
    for tensor in step.inputs:
        if tensor.dtype not in _TAKEN:
            msg = f"serving.accelerator: TensorRT does not take {tensor.dtype.value} ({tensor.name}): say fuse: false"
            raise SpecError(msg)
    plan = serving.tensorrt or TensorRt()
    parameters = {
        "precision_mode": serving.precision.upper(),
        "max_workspace_size_bytes": str(plan.workspace_bytes),
    }
    if plan.cache is not None:
        parameters |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": plan.cache}
    if serving.max_batch_size or any(-1 in tensor.dims for tensor in step.inputs):
        batches = (1, plan.batch_size or max(1, serving.max_batch_size // 2), serving.max_batch_size)
        for number, which in enumerate(("min", "opt", "max")):
            batch = (batches[number],) if serving.max_batch_size else ()
            shapes = (f"{one.name}:{_shape(batch, one, plan, number)}" for one in step.inputs)
            parameters[f"trt_profile_{which}_shapes"] = ",".join(shapes)
    entry = accelerators.gpu_execution_accelerator.add(name="tensorrt")
    for key, value in parameters.items():
        entry.parameters[key] = value


def _shape(batch: tuple[int, ...], tensor: TensorSpec, plan: TensorRt, number: int) -> str:
    if -1 in tensor.dims and plan.lengths is None:
        msg = f"serving.tensorrt: {tensor.name} is {list(tensor.dims)}: give the lengths of its free axes"
        raise SpecError(msg)
    free = plan.lengths[number] if plan.lengths else -1
    return "x".join(str(free if axis < 0 else axis) for axis in (*batch, *tensor.dims))
