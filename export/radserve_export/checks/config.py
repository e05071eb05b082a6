"""A configuration by itself: what Triton refuses, ignores, or dies of."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from tritonclient.grpc import model_config_pb2 as pb

from radserve_export.checks.model import backend_of, is_known_platform, same_dims
from radserve_export.checks.profiles import accelerator_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radserve_export.checks.model import Problem, ServedModel
    from radserve_export.checks.pbtxt import Field

_NOT_OF_ENSEMBLES = ("backend", "instance_group", "model_warmup", "optimization")


def config_problems(name: str, model: ServedModel) -> Iterator[Problem]:
    """What is wrong with a configuration, whatever graph it has.

    Args:
        name: The folder's name.
        model: What was read from it.
    """
    config, text = model.config, model.text
    if config.name and config.name != name:
        yield text.at("name").line, f"names the model {config.name}, its folder {name}"
    if config.max_batch_size < 0:
        yield text.at("max_batch_size").line, f"max_batch_size is {config.max_batch_size}: 0 means no batches"
    yield from _kind(model)
    yield from _repeated(text)
    yield from _versions(model)
    for side in ("input", "output"):
        yield from _tensors(model, side)
    yield from _batching(model)
    yield from _instances(model)
    yield from _warmups(model)
    yield from accelerator_problems(model)


def _kind(model: ServedModel) -> Iterator[Problem]:
    config, text = model.config, model.text
    if not model.is_ensemble:
        if config.platform and not config.backend and not is_known_platform(config.platform):
            yield text.at("platform").line, f"platform {config.platform} is none of Triton's"
        if (backend := backend_of(config)) and not backend[1] and not (config.input and config.output):
            yield 1, f"names no {'output' if config.input else 'input'}, which backend {backend[0]} may need"
        return
    if config.platform != "ensemble":
        yield text.at("ensemble_scheduling").line, 'has steps, but not platform: "ensemble"'
    for field in _NOT_OF_ENSEMBLES:
        if text.all(field):
            yield text.at(field).line, f"an ensemble takes no {field}: it belongs to the steps"


def _repeated(text: Field, within: str = "") -> Iterator[Problem]:
    """Entries of which only one counts."""
    for identity, fields in (("key", None), ("name", ("input", "output"))):
        seen: set[tuple[str, str]] = set()
        for entry in text.fields:
            key = (entry.name, entry.at(identity).value)
            if not entry.all(identity) or (fields and entry.name not in fields):
                continue
            if key in seen:
                yield entry.line, f"{within}{entry.name} {key[1]} is there twice: one of them does not count"
            seen.add(key)
    for entry in text.fields:
        yield from _repeated(entry, f"{entry.name}: ")


def _versions(model: ServedModel) -> Iterator[Problem]:
    policy, text = model.config.version_policy, model.text
    if not model.versions:
        yield 1, "has no version folder"
        return
    for number, version in enumerate(policy.specific.versions):
        if version not in model.versions:
            line = text.at("version_policy", "specific").at("versions", number=number).line
            yield line, f"serves version {version}, which is not there"
    if not model.served() and not policy.specific.versions:
        yield text.at("version_policy").line, "the version policy serves no version"


def _tensors(model: ServedModel, side: str) -> Iterator[Problem]:
    for number, tensor in enumerate(getattr(model.config, side)):
        place = model.text.at(side, number=number)
        who = f"{side} {tensor.name}"
        if not tensor.name:
            yield place.line, f"{side} {number} has no name"
        if tensor.data_type == pb.TYPE_INVALID:
            yield place.at("data_type").line, f"{who} has no data_type"
        line = place.at("dims").line
        if not tensor.dims:
            yield line, f"{who} has no dims: a single value is dims: [ 1 ] with reshape: {{ shape: [ ] }}"
        elif any(axis == 0 or axis < -1 for axis in tensor.dims):
            yield line, f"{who} has dims {list(tensor.dims)}: an axis is above 0, or -1 where its length is free"
        elif tensor.HasField("reshape") and not _same_size(list(tensor.dims), list(tensor.reshape.shape)):
            shape = list(tensor.reshape.shape)
            yield place.at("reshape").line, f"{who}: dims {list(tensor.dims)} cannot be reshaped to {shape}"


def _same_size(dims: list[int], shape: list[int]) -> bool:
    if dims.count(-1) != shape.count(-1):
        return False
    return math.prod(axis for axis in dims if axis > 0) == math.prod(axis for axis in shape if axis > 0)


def _batching(model: ServedModel) -> Iterator[Problem]:
    config = model.config
    batching, place = config.dynamic_batching, model.text.at("dynamic_batching")
    if not config.HasField("dynamic_batching"):
        return
    for number, size in enumerate(batching.preferred_batch_size):
        if not 0 < size <= config.max_batch_size:
            line = place.at("preferred_batch_size", number=number).line
            yield line, f"preferred_batch_size {size} is not within max_batch_size {config.max_batch_size}"
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not config.max_batch_size:
        yield place.at("priority_levels").line, "priority_levels count for nothing where max_batch_size is 0"
    if levels and not 1 <= default <= levels:
        line = place.at("default_priority_level").line
        yield line, f"default_priority_level must be 1 to {levels}, but is {default}"
    if levels > 1 and batching.preserve_ordering:
        yield place.at("preserve_ordering").line, "preserve_ordering allows a single priority level"
    yield from _queues(batching, place)


def _queues(batching: pb.ModelDynamicBatching, place: Field) -> Iterator[Problem]:
    policies = [(batching.default_queue_policy, place.at("default_queue_policy"), "default_queue_policy")]
    for level, policy in batching.priority_queue_policy.items():
        entry = place.keyed("priority_queue_policy", str(level), by="key")
        policies.append((policy, entry.at("value"), f"priority_queue_policy {level}"))
        if not 1 <= level <= batching.priority_levels:
            levels = batching.priority_levels
            yield entry.at("key").line, f"there is a queue policy for priority {level}, but {levels} priority_levels"
    for policy, entry, who in policies:
        if policy.allow_timeout_override and not policy.default_timeout_microseconds:
            line = entry.at("allow_timeout_override").line
            yield line, f"{who}: a request's own timeout counts only with default_timeout_microseconds above 0"


def _instances(model: ServedModel) -> Iterator[Problem]:
    if model.is_ensemble:
        return
    for number, group in enumerate(model.config.instance_group):
        place = model.text.at("instance_group", number=number)
        kind = pb.ModelInstanceGroup.Kind.Name(group.kind)
        if place.all("count") and group.count < 1:
            yield place.at("count").line, f"an instance group of {group.count} instances"
        line = place.at("gpus").line
        if group.gpus and kind in ("KIND_CPU", "KIND_MODEL"):
            yield line, f"{kind} takes no gpus"
        if any(gpu < 0 for gpu in group.gpus):
            yield line, f"gpus {list(group.gpus)}: they are counted from 0"
        for gpu, times in Counter(group.gpus).items():
            if times > 1:
                yield line, f"GPU {gpu} is there {times} times: count says how many instances each has"


def _warmups(model: ServedModel) -> Iterator[Problem]:
    if model.is_ensemble:
        return
    config = model.config
    for number, warmup in enumerate(config.model_warmup):
        place = model.text.at("model_warmup", number=number)
        if warmup.batch_size > max(config.max_batch_size, 1):
            line = place.at("batch_size").line
            yield line, f"warms up with a batch of {warmup.batch_size}, max_batch_size is {config.max_batch_size}"
        for tensor in config.input:
            if tensor.name not in warmup.inputs and not tensor.optional:
                yield place.line, f"warms up without input {tensor.name}"
        for name, given in warmup.inputs.items():
            yield from _warmup_input(model, name, given, place.keyed("inputs", name, by="key").at("value"))


def _warmup_input(model: ServedModel, name: str, given: pb.ModelWarmup.Input, entry: Field) -> Iterator[Problem]:
    tensor = next((one for one in model.config.input if one.name == name), None)
    if tensor is None:
        if model.config.input:
            yield entry.line, f"warms up with {name}, which is no input"
        return
    dims = list(given.dims)
    if any(axis < 1 for axis in dims):
        yield entry.at("dims").line, f"warms up with {name} of dims {dims}: all must be above 0"
    elif not same_dims(dims, tensor.dims):
        yield entry.at("dims").line, f"warms up with {name} of dims {dims}, not {list(tensor.dims)}"
    if given.data_type != tensor.data_type:
        yield entry.at("data_type").line, f"warms up with {name} of another data_type"
