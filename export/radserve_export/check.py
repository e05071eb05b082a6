"""Lints a model repository without a server: configurations, graphs and wiring against one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from radserve.contracts import CONTRACT_PARAMETER, Contract, TensorSpec, parse_contract
from radserve.contracts.manifest import verify_repository, version_folders
from radserve.errors import ContractError, ConversionError, RepositoryError
from radserve_export.ensemble import GRAPH_FILE
from radserve_export.graphs.checked import signature
from radserve_export.triton_config import CONFIG_FILE, datatype_of, parse_config
from radserve_export.wiring import wiring_problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from radserve_export.triton_config import ModelConfig


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """Something wrong.

    Attributes:
        file: Where, relative to the repository.
        message: What.
    """

    file: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model folder, read.

    Attributes:
        config: Its configuration.
        versions: Its version folders.
        graphs: Graph by version, of those that have one.
        labels: Lines of its label files, by file name.
    """

    config: ModelConfig
    versions: tuple[int, ...]
    graphs: Mapping[int, onnx.ModelProto] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check_repository(repository: Path) -> list[Finding]:
    """Look for everything that would keep a repository from being served rightly.

    Args:
        repository: The model repository's folder.

    Returns:
        What is wrong, by file; empty where nothing is.

    Raises:
        RepositoryError: There is no such folder.
    """
    if not repository.is_dir():
        msg = f"there is no model repository {repository}: name its folder"
        raise RepositoryError(msg)
    findings = [_of_manifest(line) for line in verify_repository(repository)]
    models: dict[str, ServedModel] = {}
    for folder in sorted(repository.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            read = _read_model(folder, findings)
            if read is not None:
                models[folder.name] = read
    return sorted({*findings, *check_models(models)})


def check_models(models: Mapping[str, ServedModel]) -> list[Finding]:
    """Compare configurations with graphs, labels, contracts, and with one another.

    Args:
        models: By the name of their folder.
    """
    findings = []
    for name, model in models.items():
        file = f"{name}/{CONFIG_FILE}"
        findings += [Finding(file=file, message=message) for message in _problems(name, model)]
    configs = {name: model.config for name, model in models.items()}
    versions = {name: model.versions for name, model in models.items()}
    for name, message in wiring_problems(configs, versions):
        findings.append(Finding(file=f"{name}/{CONFIG_FILE}", message=message))
    return findings


def _of_manifest(line: str) -> Finding:
    file, _, message = line.partition(": ")
    return Finding(file=file, message=message)


def _read_model(folder: Path, findings: list[Finding]) -> ServedModel | None:
    file = f"{folder.name}/{CONFIG_FILE}"
    try:
        config = parse_config((folder / CONFIG_FILE).read_bytes())
    except OSError as error:
        findings.append(Finding(file=file, message=f"cannot be read: {error.strerror}"))
        return None
    except RepositoryError as error:
        findings.append(Finding(file=file, message=str(error)))
        return None
    graphs = {}
    for version in version_folders(folder):
        path = version / (config.default_model_filename or GRAPH_FILE)
        if config.backend != "onnxruntime" or not path.is_file():
            continue
        try:
            graph = onnx.load_model_from_string(path.read_bytes())
        except (DecodeError, OSError) as error:
            findings.append(Finding(file=path.relative_to(folder.parent).as_posix(), message=f"is no graph: {error}"))
            continue
        if any(i.data_location == onnx.TensorProto.EXTERNAL for i in graph.graph.initializer):
            findings.append(
                Finding(file=path.relative_to(folder.parent).as_posix(), message="keeps its weights in another file")
            )
        graphs[int(version.name)] = graph
    named = {output.label_filename for output in config.output if output.label_filename}
    labels = {
        name: tuple((folder / name).read_text(encoding="utf-8").splitlines())
        for name in sorted(named)
        if (folder / name).is_file()
    }
    versions = tuple(int(version.name) for version in version_folders(folder))
    return ServedModel(config=config, versions=versions, graphs=graphs, labels=labels)


def _problems(name: str, model: ServedModel) -> Iterator[str]:
    config = model.config
    if config.name and config.name != name:
        yield f"names the model {config.name}, its folder {name}"
    for version in config.version_policy.specific.versions:
        if version not in model.versions:
            yield f"serves version {version}, which is not there"
    if config.backend == "onnxruntime":
        for version in config.version_policy.specific.versions or model.versions:
            yield from _graph_problems(model, version)
    yield from _label_problems(model)
    if CONTRACT_PARAMETER in config.parameters:
        yield from _contract_problems(name, config)


def _label_problems(model: ServedModel) -> Iterator[str]:
    for output in model.config.output:
        if not output.label_filename:
            continue
        lines = model.labels.get(output.label_filename)
        if lines is None:
            yield f"names {output.label_filename}, which is not there"
        elif list(output.dims) != [len(lines)]:
            yield f"{output.name} has {list(output.dims)} values, {output.label_filename} {len(lines)} lines"


def _graph_problems(model: ServedModel, version: int) -> Iterator[str]:
    graph = model.graphs.get(version)
    if graph is None:
        yield f"version {version} has no graph that can be read"
        return
    try:
        inputs, outputs = signature(graph, batched=model.config.max_batch_size > 0)
    except ConversionError as error:
        yield f"version {version}: {error}"
        return
    for kind, have, want in (("input", inputs, model.config.input), ("output", outputs, model.config.output)):
        configured = {tensor.name: (datatype_of(tensor.data_type), tuple(tensor.dims)) for tensor in want}
        found = {tensor.name: (tensor.dtype, tensor.dims) for tensor in have}
        for name in sorted({*configured, *found}):
            if configured.get(name) != found.get(name):
                here, there = _shown(configured.get(name)), _shown(found.get(name))
                yield f"{kind} {name} is {here} here, but {there} in the graph of version {version}"


def _shown(tensor: tuple[object, tuple[int, ...]] | None) -> str:
    if tensor is None:
        return "absent"
    return f"{getattr(tensor[0], 'value', 'of another type')} {list(tensor[1])}"


def _contract_problems(name: str, config: ModelConfig) -> Iterator[str]:
    try:
        contract: Contract = parse_contract(config.parameters[CONTRACT_PARAMETER].string_value)
    except ContractError as error:
        yield str(error)
        return
    if contract.name != name:
        yield f"the contract is that of {contract.name}"
    if contract.version not in config.version_policy.specific.versions:
        yield f"the contract is of version {contract.version}, which is not served"
    if contract.max_batch_size != config.max_batch_size:
        yield "the contract has another max_batch_size"
    for kind, described, configured in (
        ("inputs", contract.inputs, config.input),
        ("outputs", contract.outputs, config.output),
    ):
        if {_key(tensor) for tensor in described} != {
            (tensor.name, datatype_of(tensor.data_type), tuple(tensor.dims)) for tensor in configured
        }:
            yield f"the contract has other {kind}"


def _key(tensor: TensorSpec) -> tuple[str, object, tuple[int, ...]]:
    return tensor.name, tensor.dtype, tensor.dims
