"""What the files of a published version are: configurations, contract, labels, graphs."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

import onnx

from radserve.contracts import Contract, wire_tensors
from radserve.errors import ConversionError, SpecError
from radserve_export.check import ServedModel, check_models
from radserve_export.ensemble import GRAPH_FILE
from radserve_export.graphs.checked import signature
from radserve_export.repository import version_before
from radserve_export.triton_config import CONFIG_FILE, LABELS_FILE, dump_config, ensemble_config, step_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from radserve_export.ensemble import Step
    from radserve_export.network import Network
    from radserve_export.spec import Spec
    from radserve_export.triton_config import ModelConfig


def build_files(
    spec: Spec, network: Network, steps: Sequence[Step], repository: Path, version: int
) -> dict[str, bytes]:
    """Every file of a version, by its path in the repository.

    Args:
        spec: What to build.
        network: Where it comes from.
        steps: The steps.
        repository: Where older versions of the steps may lie.
        version: The version's number.

    Raises:
        SpecError: The contract would be out of bounds.
        ConversionError: The parts do not fit together.
    """
    contract = _contract(spec, network, steps, version)
    configs = {spec.name: ensemble_config(contract, steps)}
    for step in steps:
        configs[step.name] = step_config(step, spec.serving, _served_versions(repository, step, version))
    names = tuple(label.name for label in contract.labels)
    _check_before_writing(spec.name, steps, configs, version, names)
    files = {f"{name}/{CONFIG_FILE}": dump_config(config) for name, config in configs.items()}
    if names:
        files[f"{spec.name}/{LABELS_FILE}"] = "".join(f"{name}\n" for name in names).encode()
    for step in steps:
        files |= {f"{step.name}/{version}/{name}": content for name, content in step.files.items()}
    return files


def _served_versions(repository: Path, step: Step, version: int) -> list[int]:
    """The current version, and the one before it if the same configuration fits both."""
    older = version_before(repository, step.name, version)
    if older is None:
        return [version]
    if step.graph is not None:
        graph = onnx.load(repository / step.name / str(older) / GRAPH_FILE, load_external_data=False)
        if signature(graph, batched=step.is_batched) != (step.inputs, step.outputs):
            return [version]
    return [older, version]


def _check_before_writing(
    name: str, steps: Sequence[Step], configs: Mapping[str, ModelConfig], version: int, labels: tuple[str, ...]
) -> None:
    """What ``radserve check`` would find must not be written in the first place."""
    older = {v for config in configs.values() for v in config.version_policy.specific.versions} - {version}
    models = {
        step.name: ServedModel(
            config=configs[step.name],
            versions=(*older, version),
            # The older version's graph is checked where it is published.
            graphs=dict.fromkeys((*older, version), step.graph) if step.graph is not None else {},
        )
        for step in steps
    }
    models[name] = ServedModel(config=configs[name], versions=(version,), labels={LABELS_FILE: labels})
    findings = check_models(models)
    if findings:
        msg = f"{findings[0].file}: {findings[0].message}"
        raise ConversionError(msg)


def _contract(spec: Spec, network: Network, steps: Sequence[Step], version: int) -> Contract:
    if spec.input is None:
        inputs, outputs = steps[0].inputs, steps[0].outputs
    else:
        inputs, outputs = wire_tensors(spec.task, spec.input, len(spec.labels))
    try:
        return Contract(
            name=spec.name,
            version=version,
            task=spec.task,
            description=spec.description,
            intended_use=spec.intended_use,
            input=spec.input,
            inputs=inputs,
            outputs=outputs,
            max_batch_size=spec.serving.max_batch_size,
            labels=spec.labels,
            exclusive=spec.exclusive,
            calibration=spec.calibration,
            model_sha256=network.source_sha256,
            exporter_version=installed_version("radserve"),
        )
    except ValueError as error:
        raise SpecError(str(error)) from error
