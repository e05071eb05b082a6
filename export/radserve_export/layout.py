"""What the files of a published version are: configurations, contract, labels, graphs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

from msgspec import UNSET

from radserve.contracts import PROBABILITIES, Contract, wire_tensors
from radserve.errors import ConversionError, SpecError
from radserve_export.check import ServedModel, check_models
from radserve_export.graphs.evidence import evidence_of
from radserve_export.network import Form
from radserve_export.publication import COPIES
from radserve_export.repository import version_before
from radserve_export.triton_config import CONFIG_FILE, dump_config, ensemble_config, labels_file, step_config
from radserve_export.versions import follow, read_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from radserve.contracts import Reference
    from radserve_export.ensemble import Step
    from radserve_export.network import Network
    from radserve_export.spec import Spec
    from radserve_export.triton_config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A version as it will lie in the repository.

    Attributes:
        models: The public model, then its steps.
        files: Contents by path in the repository.
    """

    models: tuple[str, ...]
    files: Mapping[str, bytes]


def lay_out(
    spec: Spec,
    network: Network,
    steps: Sequence[Step],
    repository: Path,
    version: int,
    *,
    population: Reference | None = None,
) -> Layout:
    """Every file of a version.

    Args:
        spec: What to build.
        network: Where it comes from.
        steps: The steps.
        repository: Where older versions may lie.
        version: The version's number.
        population: What the contract's reference will be.

    Raises:
        SpecError: The contract would be out of bounds.
        ConversionError: The parts do not fit together.
        RepositoryError: The version before cannot be read.
    """
    contract = _contract(spec, network, steps, version, population)
    configs = {spec.name: ensemble_config(contract, steps)}
    configs |= {step.name: step_config(step, spec.serving, (version,)) for step in steps}
    classified = contract.outputs[0].name == PROBABILITIES
    labels = "".join(f"{label.name}\n" for label in contract.labels) if classified else ""
    _check_before_writing(steps, configs, version, {spec.name: labels} if labels else {})
    older = version_before(repository, spec.name, version)
    names = follow(configs, version, None if older is None else read_version(repository, spec.name, older))
    files = config_files(configs, names, version)
    if labels:
        files[f"{spec.name}/{labels_file(version)}"] = labels.encode()
    for step in steps:
        files |= {f"{names[step.name]}/{version}/{name}": content for name, content in step.files.items()}
    return Layout(models=tuple(names.values()), files=files)


def config_files(configs: Mapping[str, ModelConfig], names: Mapping[str, str], version: int) -> dict[str, bytes]:
    """The configurations, and the copies of them that a rollback reads.

    Args:
        configs: By plain name; the first is the public model's.
        names: The models' names by plain name.
        version: The version's number.
    """
    public = next(iter(configs))
    files = {}
    for name, config in configs.items():
        content = dump_config(config)
        files[f"{names[name]}/{CONFIG_FILE}"] = content
        files[f"{public}/{version}/{COPIES}/{names[name]}.pbtxt"] = content
    return files


def _check_before_writing(
    steps: Sequence[Step], configs: Mapping[str, ModelConfig], version: int, labels: Mapping[str, str]
) -> None:
    """What ``radserve check`` would find must not be written in the first place."""
    graphs = {step.name: {version: step.graph} for step in steps if step.graph is not None}
    models = {
        name: ServedModel(
            config=config,
            versions=(version,),
            graphs=graphs.get(name, {}),
            labels={labels_file(version): tuple(labels[name].splitlines())} if name in labels else {},
        )
        for name, config in configs.items()
    }
    findings = check_models(models)
    if findings:
        msg = f"{findings[0].file}: {findings[0].message}"
        raise ConversionError(msg)


def _contract(
    spec: Spec, network: Network, steps: Sequence[Step], version: int, population: Reference | None
) -> Contract:
    if spec.input is None:
        evidence, inputs, outputs = None, steps[0].inputs, steps[0].outputs
    else:
        evidence = evidence_of(network.parts[Form.EVIDENCE.value].graph) if spec.evidence else None
        inputs, outputs = wire_tensors(spec.task, spec.input, len(spec.labels), evidence)
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
            evidence=evidence,
            reference=population,
            priorities=UNSET if spec.serving.queue and spec.serving.max_batch_size else False,
            model_sha256=network.source_sha256,
            exporter_version=installed_version("radserve"),
        )
    except ValueError as error:
        raise SpecError(str(error)) from error
