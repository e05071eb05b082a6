"""``config.pbtxt``, written through Triton's own protobuf messages and read back by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from radserve.contracts import CONTRACT_PARAMETER, PROBABILITIES, Datatype, dump_contract
from radserve.errors import RepositoryError
from radserve_export.accelerators import add_accelerator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from radserve.contracts import Contract, TensorSpec
    from radserve_export.ensemble import Step
    from radserve_export.serving import Serving

ModelConfig: TypeAlias = pb.ModelConfig
CONFIG_FILE = "config.pbtxt"
_KINDS = {
    "auto": pb.ModelInstanceGroup.KIND_AUTO,
    "cpu": pb.ModelInstanceGroup.KIND_CPU,
    "gpu": pb.ModelInstanceGroup.KIND_GPU,
}


def labels_file(version: int) -> str:
    """Where a public model's labels lie: with their version, so that one renaming changes configuration and labels."""
    return f"{version}/labels.txt"


def dump_config(config: ModelConfig) -> bytes:
    """Write a configuration as text."""
    return text_format.MessageToString(config, as_utf8=True).encode()


def parse_config(content: bytes) -> ModelConfig:
    """Read a configuration.

    Raises:
        RepositoryError: It is not one; the message names the line.
    """
    try:
        return text_format.Parse(content.decode(), pb.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        msg = f"not a model configuration: {error}"
        raise RepositoryError(msg) from error


def datatype_of(value: int) -> Datatype | None:
    """Triton's configuration enum as a Datatype; None for what no graph here has."""
    name = pb.DataType.Name(value).removeprefix("TYPE_")
    name = "BYTES" if name == "STRING" else name
    return Datatype(name) if name in Datatype.__members__ else None


def _type(datatype: Datatype) -> int:
    return int(pb.DataType.Value("TYPE_STRING" if datatype is Datatype.BYTES else f"TYPE_{datatype.value}"))


def _tensors(config: ModelConfig, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
    for tensor in inputs:
        config.input.add(name=tensor.name, data_type=_type(tensor.dtype), dims=tensor.dims)
    for tensor in outputs:
        config.output.add(name=tensor.name, data_type=_type(tensor.dtype), dims=tensor.dims)


def step_config(step: Step, serving: Serving, versions: Sequence[int]) -> ModelConfig:
    """Configuration of a step.

    Args:
        step: Name, backend, tensors, parameters.
        serving: How Triton runs it.
        versions: Those it serves: the current and the previous one.

    Raises:
        SpecError: TensorRT does not take the step's inputs.
    """
    config = pb.ModelConfig(name=step.name, backend=step.backend, max_batch_size=serving.max_batch_size)
    _tensors(config, step.inputs, step.outputs)
    config.version_policy.specific.versions.extend(sorted(versions))
    is_graph = step.backend == "onnxruntime"
    instances = serving.instances
    kind, gpus = (_KINDS[instances.kind], instances.gpus) if is_graph else (_KINDS["cpu"], ())
    config.instance_group.add(kind=kind, count=instances.count, gpus=gpus)
    if serving.max_batch_size:
        _add_batching(config, serving)
    if is_graph:
        threads = {"intra_op_thread_count": str(instances.threads), "inter_op_thread_count": "1"}
        _add_parameters(config, threads)
        for size in serving.warmup_batch_sizes if serving.max_batch_size else (0,):
            _add_warmup(config, step, size)
        if serving.accelerator != "none":
            add_accelerator(config, step, serving)
    _add_parameters(config, step.parameters)
    return config


def _add_batching(config: ModelConfig, serving: Serving) -> None:
    """Each step resets a priority beyond its own levels: all steps get the same ones."""
    queue, batching = serving.queue, config.dynamic_batching
    if queue is None:
        batching.SetInParent()  # priorities or limits of any kind keep Triton from preparing batches
        return
    batching.max_queue_delay_microseconds = queue.max_delay_us
    batching.priority_levels = queue.priority_levels
    batching.default_priority_level = queue.priority_levels
    # A request's own timeout counts only if overriding is allowed and the default is above 0.
    policy = batching.default_queue_policy
    policy.timeout_action = pb.ModelQueuePolicy.REJECT
    policy.default_timeout_microseconds = queue.timeout_us
    policy.allow_timeout_override = queue.allow_timeout_override
    policy.max_queue_size = queue.max_size


def _add_parameters(config: ModelConfig, parameters: Mapping[str, str]) -> None:
    for key, value in parameters.items():
        config.parameters[key].string_value = value


def _add_warmup(config: ModelConfig, step: Step, size: int) -> None:
    """Zeros: readiness waits until the model has run once. Not where an axis' length is the caller's.

    Zeros are token ids of any vocabulary; random numbers might not be.
    """
    if any(axis < 0 for tensor in step.inputs for axis in tensor.dims):
        return
    warmup = config.model_warmup.add(name=f"zeros_{size}" if size > 1 else "zeros", batch_size=size, count=1)
    for tensor in step.inputs:
        entry = warmup.inputs[tensor.name]
        entry.data_type = _type(tensor.dtype)
        entry.dims.extend(tensor.dims)
        entry.zero_data = True


def ensemble_config(contract: Contract, steps: Sequence[Step]) -> ModelConfig:
    """Configuration of the public model.

    It serves its current version alone, whose steps it pins.

    Args:
        contract: Travels in the parameters.
        steps: In the order of the data's flow.
    """
    config = pb.ModelConfig(name=contract.name, platform="ensemble", max_batch_size=contract.max_batch_size)
    _tensors(config, contract.inputs, contract.outputs)
    if contract.labels and contract.outputs[0].name == PROBABILITIES:
        config.output[0].label_filename = labels_file(contract.version)
    config.version_policy.specific.versions.append(contract.version)
    for step in steps:
        entry = config.ensemble_scheduling.step.add(model_name=step.name, model_version=contract.version)
        for tensor in step.inputs:
            entry.input_map[tensor.name] = tensor.name
        for tensor in step.outputs:
            entry.output_map[tensor.name] = tensor.name
    _add_parameters(config, {CONTRACT_PARAMETER: dump_contract(contract)})
    return config
