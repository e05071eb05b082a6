"""Accelerators, and the shapes that TensorRT is to build its engines for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tritonclient.grpc import model_config_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve_export.checks.model import Problem, ServedModel

_PROFILES = tuple(f"trt_profile_{which}_shapes" for which in ("min", "opt", "max"))
_SHAPE = re.compile(r"(?P<name>.+):(?P<dims>[0-9]+(?:x[0-9]+)*)\Z")
_Shapes = dict[str, tuple[int, ...]]


def accelerator_problems(model: ServedModel) -> Iterator[Problem]:
    """Accelerators that no instance can use, and shape profiles that do not fit the inputs."""
    config = model.config
    asked = config.optimization.execution_accelerators.gpu_execution_accelerator
    place = model.text.at("optimization").at("execution_accelerators")
    if asked and config.instance_group and all(g.kind == pb.ModelInstanceGroup.KIND_CPU for g in config.instance_group):
        line = place.at("gpu_execution_accelerator").line
        yield line, "asks for a GPU accelerator, but all its instances are KIND_CPU"
    for number, accelerator in enumerate(asked):
        entry = place.at("gpu_execution_accelerator", number=number)
        given = [key for key in _PROFILES if key in accelerator.parameters]
        if not given:
            continue
        lines = {key: entry.keyed("parameters", key, by="key").line for key in _PROFILES}
        for key in _PROFILES:
            if key not in given:
                yield entry.line, f"{given[0]} is of no use without {key}"
        profiles: dict[str, _Shapes] = {}
        for key in given:
            shapes = _parse(accelerator.parameters[key])
            if shapes is None:
                yield lines[key], f"{key} is not NAME:1x2x3, separated by commas"
            else:
                profiles[key] = shapes
        if len(profiles) == len(_PROFILES):
            yield from _misfits(model, profiles, lines)


def _parse(value: str) -> _Shapes | None:
    parts = [_SHAPE.match(part.strip()) for part in value.split(",")]
    if not all(parts):
        return None
    return {part["name"]: tuple(map(int, part["dims"].split("x"))) for part in parts if part}


def _misfits(model: ServedModel, profiles: dict[str, _Shapes], lines: dict[str, int]) -> Iterator[Problem]:
    batch = model.config.max_batch_size
    inputs = {tensor.name: [-1] * bool(batch) + list(tensor.dims) for tensor in model.config.input}
    for key, shapes in profiles.items():
        for name, shape in shapes.items():
            dims = inputs.get(name)
            if dims is None:
                if inputs:
                    yield lines[key], f"{key} names {name}, which is no input"
            elif len(dims) != len(shape) or any(a not in (-1, b) for a, b in zip(dims, shape, strict=True)):
                yield lines[key], f"{key} gives {name} the shape {list(shape)}, the configuration {dims}"
    least, best, most = (profiles[key] for key in _PROFILES)
    for name in least.keys() & best.keys() & most.keys():
        axes = zip(least[name], best[name], most[name], strict=False)
        if not all(low <= middle <= high for low, middle, high in axes):
            yield lines[_PROFILES[0]], f"the profiles of {name} do not grow from min over opt to max"
        if batch and most[name][0] < batch:
            yield lines[_PROFILES[2]], f"the largest profile of {name} is for batches of {most[name][0]}, not {batch}"
