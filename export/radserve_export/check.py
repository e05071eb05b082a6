"""Lints any Triton model repository without a server: configurations, files and wiring against one another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from radserve.contracts.manifest import MANIFEST, PENDING, verify_repository
from radserve.errors import RepositoryError
from radserve_export.checks import Finding, ServedModel
from radserve_export.checks.config import config_problems
from radserve_export.checks.contract import companion_problems, contract_problems
from radserve_export.checks.folder import read_model
from radserve_export.checks.graph import graph_problems, label_problems
from radserve_export.checks.lookups import lookup_problems
from radserve_export.checks.wiring import wiring_problems
from radserve_export.triton_config import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

_MALFORMED = re.compile(r"(?P<file>\S+) (?P<message>is malformed: .*)", re.DOTALL)
_SUPERSEDED = ": no step serves this version, but a rollback to it needs it: restore it from a copy"

__all__ = ["Finding", "ServedModel", "check_models", "check_repository"]


def check_repository(repository: Path, backends: Collection[str] = ()) -> list[Finding]:
    """Look for everything that would keep a repository from being served rightly.

    Args:
        repository: The model repository's folder; of this exporter or of anybody.
        backends: What the server has beside Triton's own.

    Returns:
        What is wrong, by file and line; empty where nothing is.

    Raises:
        RepositoryError: There is no such folder.
    """
    if not repository.is_dir():
        msg = f"there is no model repository {repository}: name its folder"
        raise RepositoryError(msg)
    findings: list[Finding] = []
    if not any(entry.is_dir() and not entry.name.startswith(".") for entry in repository.iterdir()):
        findings.append(Finding(file=".", message="holds no model: is this the repository's folder?"))
    # Only this exporter writes manifests, and then there is one for every model.
    if (repository / PENDING).is_file() or any(repository.glob(f"*/*/{MANIFEST}")):
        findings += _changes(repository)
    models: dict[str, ServedModel] = {}
    for folder in sorted(repository.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            read = read_model(folder, findings, backends)
            if read is not None:
                models[folder.name] = read
    return sorted({*findings, *check_models(models)})


def check_models(models: Mapping[str, ServedModel]) -> list[Finding]:
    """Compare configurations with graphs, labels, contracts, and with one another.

    Args:
        models: By the name of their folder.
    """
    problems = [
        (name, problem)
        for name, model in models.items()
        for problem in (
            *config_problems(name, model),
            *graph_problems(model),
            *label_problems(model),
            *lookup_problems(model),
            *contract_problems(name, model),
        )
    ]
    problems += [*wiring_problems(models), *companion_problems(models)]
    return [Finding(file=f"{name}/{CONFIG_FILE}", line=line, message=message) for name, (line, message) in problems]


def _changes(repository: Path) -> list[Finding]:
    """What is not as it was published; of what no step serves, that this does not keep a server from starting."""
    differences = verify_repository(repository)
    served = verify_repository(repository, served_only=True) if differences else []
    return [_of_manifest(line if line in served else f"{line}{_SUPERSEDED}") for line in differences]


def _of_manifest(line: str) -> Finding:
    malformed = _MALFORMED.match(line)
    if malformed is not None:
        return Finding(file=malformed["file"], message=malformed["message"])
    file, _, message = line.partition(": ")
    return Finding(file=file, message=message)
