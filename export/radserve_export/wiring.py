"""Whether the steps of the ensembles fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from radserve_export.triton_config import datatype_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tritonclient.grpc.model_config_pb2 import ModelEnsembling

    from radserve_export.triton_config import ModelConfig

Tensor: TypeAlias = tuple[object, tuple[int, ...]]


def wiring_problems(
    configs: Mapping[str, ModelConfig], versions: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, str]]:
    """Follow every ensemble's tensors through its steps.

    Args:
        configs: Configurations by model name.
        versions: The version folders that exist, by model name.

    Yields:
        The model and what is wrong with it.
    """
    for name, config in configs.items():
        if config.HasField("ensemble_scheduling"):
            for problem in _steps(config, configs, versions):
                yield name, problem
            for problem in _tensors(config, configs):
                yield name, problem


def _steps(
    config: ModelConfig, configs: Mapping[str, ModelConfig], versions: Mapping[str, Sequence[int]]
) -> Iterator[str]:
    batching = {}
    for step in config.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        if model is None:
            yield f"step {step.model_name} is not there, or its configuration cannot be read"
            continue
        if step.model_version < 1:
            yield f"step {step.model_name} is not pinned to a version"
        elif step.model_version not in versions[step.model_name]:
            yield f"step {step.model_name} is pinned to version {step.model_version}, which is not there"
        elif step.model_version not in model.version_policy.specific.versions:
            yield f"step {step.model_name} is pinned to version {step.model_version}, which its policy does not serve"
        if (config.max_batch_size == 0) != (model.max_batch_size == 0) or config.max_batch_size > model.max_batch_size:
            sizes = f"of {model.max_batch_size}, the ensemble of {config.max_batch_size}"
            yield f"step {step.model_name} takes batches {sizes}"
        levels = model.dynamic_batching
        batching[step.model_name] = (levels.priority_levels, levels.default_priority_level)
    if len(set(batching.values())) > 1:
        shown = ", ".join(f"{name} has {levels}" for name, (levels, _) in batching.items())
        yield f"the steps differ in their priority levels: {shown}"


def _tensors(config: ModelConfig, configs: Mapping[str, ModelConfig]) -> Iterator[str]:
    made = {tensor.name: _described(tensor) for tensor in config.input}
    wanted = [("the ensemble", tensor.name, _described(tensor)) for tensor in config.output]
    for step in config.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        if model is None:
            continue
        inputs = {tensor.name: _described(tensor) for tensor in model.input}
        outputs = {tensor.name: _described(tensor) for tensor in model.output}
        yield from _mapping(step, inputs, outputs)
        who = f"step {step.model_name}"
        wanted += [(who, outer, inputs[inner]) for inner, outer in step.input_map.items() if inner in inputs]
        for inner, outer in step.output_map.items():
            if outer in made:
                yield f"tensor {outer} is made twice"
            elif inner in outputs:
                made[outer] = outputs[inner]
    yield from _flow(made, wanted)


def _flow(made: Mapping[str, Tensor], wanted: Sequence[tuple[str, str, Tensor]]) -> Iterator[str]:
    for who, name, tensor in wanted:
        if name not in made:
            yield f"{who} takes {name}, which nothing makes"
        elif made[name] != tensor:
            yield f"{who} takes {name} as {_shown(tensor)}, but it is {_shown(made[name])}"
    for name in sorted(set(made) - {name for _, name, _ in wanted}):
        yield f"tensor {name} is read by nothing"


def _mapping(step: ModelEnsembling.Step, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Iterator[str]:
    for name in sorted(set(inputs) ^ set(step.input_map)):
        yield f"step {step.model_name}: input {name} is {'not fed' if name in inputs else 'none of its inputs'}"
    for name in sorted(set(step.output_map) - set(outputs)):
        yield f"step {step.model_name}: {name} is none of its outputs"


def _described(tensor: object) -> Tensor:
    return datatype_of(tensor.data_type), tuple(tensor.dims)  # type: ignore[attr-defined]  # a protobuf message


def _shown(tensor: Tensor) -> str:
    return f"{getattr(tensor[0], 'value', 'another type')} {list(tensor[1])}"
