"""How a version follows the one before, so that a server can go from one to the other without a gap.

While the steps are loaded anew the old public model still answers, by the
steps' old version: so a step serves both, under one configuration. Where one
configuration does not fit both, the new step gets a name of its own.
"""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from radserve.contracts import CONTRACT_PARAMETER, SCHEMA_VERSION, dump_contract, parse_contract
from radserve.contracts.manifest import MANIFEST, Manifest, read_manifest, version_folders
from radserve.errors import ContractError, RepositoryError
from radserve_export.publication import COPIES
from radserve_export.triton_config import parse_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from radserve_export.triton_config import ModelConfig

_NUMBER = re.compile(r"_\d+\Z")
_OPTIONS = ("intra_op_thread_count", "inter_op_thread_count")  # how a graph is run, not what it is


@dataclass(frozen=True, kw_only=True)
class Version:
    """A published version.

    Attributes:
        manifest: Its manifest.
        configs: The configurations it was published with, by model.
    """

    manifest: Manifest
    configs: Mapping[str, ModelConfig]


def read_version(repository: Path, name: str, version: int) -> Version:
    """Read a published version, whether or not it is served.

    Raises:
        RepositoryError: It is not there, or incomplete; the message names those that are.
    """
    folder = repository / name / str(version)
    try:
        manifest = read_manifest(folder / MANIFEST)
        configs = {model: parse_config((folder / COPIES / f"{model}.pbtxt").read_bytes()) for model in manifest.models}
    except FileNotFoundError as error:
        there = ", ".join(f.name for f in version_folders(repository / name) if (f / COPIES).is_dir()) or "none"
        msg = f"{repository} has no version {version} of {name} to read: there are {there}"
        raise RepositoryError(_remedy(repository, name) or msg) from error
    except (OSError, ValueError) as error:
        msg = f"{folder}: {error}"
        raise RepositoryError(msg) from error
    return Version(manifest=manifest, configs=configs)


def _remedy(repository: Path, name: str) -> str | None:
    """What to do where versions were published before their configurations were kept: nothing can follow them."""
    folders = [folder for folder in version_folders(repository / name) if (folder / MANIFEST).is_file()]
    manifests = []
    for folder in folders:
        with suppress(OSError, ValueError):
            manifests.append(read_manifest(folder / MANIFEST))
    kept = f"/{COPIES}/"
    if not manifests or any(kept in file for manifest in manifests for file in manifest.files):
        return None
    models = sorted({model for manifest in manifests for model in manifest.models})
    command = shlex.join(["rm", "-r", *(str(repository / model) for model in models)])
    return (
        f"{repository}: {name} was published by an older radserve, which kept no copies of its configurations"
        f" ({name}/N/{COPIES}): no version can follow it. Stop the servers, run `{command}`, export {name} again (it"
        " begins anew at version 1), start the servers, and restart the clients: they may remember another version 1"
    )


def plain_name(model: str, version: Version) -> str:
    """A step's name without the number of the version that made it need another one."""
    is_step = not version.configs[model].HasField("ensemble_scheduling")
    return _NUMBER.sub("", model) if is_step else model


def renumbered(version: Version, number: int) -> dict[str, ModelConfig]:
    """A published version's configurations as those of another, with no other beside it.

    Args:
        version: The published version.
        number: What the contracts, the pins and the policies name.

    Returns:
        Configurations by plain name.

    Raises:
        RepositoryError: A contract cannot be read.
    """
    names = {name: plain_name(name, version) for name in version.manifest.models}
    configs = {}
    for name, published in version.configs.items():
        config = configs[names[name]] = type(published)()
        config.CopyFrom(published)
        config.name = names[name]
        del config.version_policy.specific.versions[:]
        config.version_policy.specific.versions.append(number)
        for output in config.output:
            if output.label_filename:
                output.label_filename = f"{number}/{output.label_filename.rpartition('/')[2]}"
        for step in config.ensemble_scheduling.step:
            step.model_name, step.model_version = names[step.model_name], number
        if CONTRACT_PARAMETER in config.parameters:
            value = config.parameters[CONTRACT_PARAMETER]
            try:
                contract = parse_contract(value.string_value)
            except ContractError as error:
                msg = f"{name}: {error}"
                raise RepositoryError(msg) from error
            # What is written now has all fields of the present schema.
            told = msgspec.structs.replace(contract, schema_version=SCHEMA_VERSION, version=number)
            value.string_value = dump_contract(told)
    return configs


def follow(configs: Mapping[str, ModelConfig], version: int, before: Version | None) -> dict[str, str]:
    """Let a version follow another: its configurations are changed so that both can be served.

    Args:
        configs: Of the new version, steps by their plain names; they are changed.
        version: The new version.
        before: The version that is served now.

    Returns:
        New names by plain names, those of the public models included.
    """
    names = {name: name for name in configs}
    older = {} if before is None else {plain_name(name, before): name for name in before.configs}
    for name, config in configs.items():
        if before is None or config.HasField("ensemble_scheduling") or name not in older:
            continue
        if fits(config, before.configs[older[name]]):
            names[name] = older[name]
            served = {before.manifest.version, version}
            del config.version_policy.specific.versions[:]
            config.version_policy.specific.versions.extend(sorted(served))
        else:
            names[name] = f"{name}_{version}"
    for name, config in configs.items():
        config.name = names[name]
        for step in config.ensemble_scheduling.step:
            step.model_name = names.get(step.model_name, step.model_name)
    return names


def fits(config: ModelConfig, older: ModelConfig) -> bool:
    """Whether a step's configuration also serves its older version.

    Args:
        config: The step's configuration.
        older: The one that its older version was published with.
    """
    return (
        (config.backend, config.max_batch_size) == (older.backend, older.max_batch_size)
        and list(config.input) == list(older.input)
        and list(config.output) == list(older.output)
        and _parameters(config) == _parameters(older)
    )


def _parameters(config: ModelConfig) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items() if key not in _OPTIONS}
