"""Publishes an older version's content again, as a new version."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from radserve.contracts.manifest import MANIFEST, hash_file, read_manifest, version_folders
from radserve.errors import RepositoryError
from radserve_export import repository as repo
from radserve_export.evidence import SUFFIX, has_maps
from radserve_export.layout import config_files
from radserve_export.publication import COPIES, publish
from radserve_export.versions import follow, plain_name, read_version, renumbered

if TYPE_CHECKING:
    from pathlib import Path

    from radserve_export.versions import Version


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        name: The public model.
        version: Its new version.
        restored: The version whose content that has.
        replaced: The version that was served before.
    """

    name: str
    version: int
    restored: int
    replaced: int


def rollback(repository: Path, name: str, *, to: int | None = None) -> RolledBack:
    """Serve an older version's content again.

    The version number goes on: clients tell by it that the contract is another.

    Args:
        repository: The model repository.
        name: The public model.
        to: The version whose content to serve; None takes the one before the
            present content, so that rolling back twice goes back twice.

    Raises:
        RepositoryError: There is no such model or version, its files were changed,
            or the repository cannot be written.
    """
    with repo.locked(repository):
        newest = repo.newest_version(repository, name)
        if not newest:
            msg = f"{repository} has no public model {name}: name one of its ensembles"
            raise RepositoryError(msg)
        current = read_version(repository, name, newest)
        older = read_version(repository, name, _target(repository, current) if to is None else to)
        if older.manifest.version == newest:
            msg = f"version {newest} of {name} is the one that is served: choose an older one"
            raise RepositoryError(msg)
        version = max(repo.newest_version(repository, model) for model in current.manifest.models) + 1
        _publish_again(repository, older, current, version)
    return RolledBack(name=name, version=version, restored=older.manifest.version, replaced=newest)


def _target(repository: Path, current: Version) -> int:
    present = current.manifest.restores or current.manifest.version
    target = repo.version_before(repository, current.manifest.name, present)
    if target is None:
        msg = f"there is no version of {current.manifest.name} before {present}: name one with --to"
        raise RepositoryError(msg)
    return target


def _publish_again(repository: Path, older: Version, current: Version, version: int) -> None:
    number = older.manifest.version
    configs = renumbered(older, version)
    plain = {model: plain_name(model, older) for model in older.manifest.models}
    names = follow(configs, version, current)
    files = config_files(configs, names, version)
    with repo.staging(repository) as staged:
        hashes = repo.write_staged(staged, files)
        for file, expected in older.manifest.files.items():
            model, _, inside = file.partition("/")
            folder, _, rest = inside.partition("/")
            if folder != str(number) or rest.startswith(f"{COPIES}/"):
                continue
            if not (repository / file).is_file() or hash_file(repository / file) != expected:
                msg = f"{repository / file} is not what was published as version {number}: restore it"
                raise RepositoryError(msg)
            new = f"{names[plain[model]]}/{version}/{rest}"
            (staged / new).parent.mkdir(parents=True, exist_ok=True)
            repo.link(repository / file, staged / new)
            hashes[new] = expected
        manifest = msgspec.structs.replace(
            older.manifest,
            version=version,
            models=tuple(names[plain[model]] for model in older.manifest.models),
            files=hashes,
            restores=older.manifest.restores or number,
        )
        repo.write_staged_manifest(staged, manifest)
        publish(staged, repository, manifest)


@dataclass(frozen=True, kw_only=True)
class LeftBehind:
    """A model with evidence maps that explains another network than its plain model now has.

    Attributes:
        name: The model with the maps.
        fitting: Its newest version that explains the plain model's network; None if it has none.
    """

    name: str
    fitting: int | None


def left_behind(repository: Path, name: str) -> LeftBehind | None:
    """What a rollback of a plain model alone leaves.

    Args:
        repository: The model repository.
        name: The plain model.

    Returns:
        None where there are no evidence maps, or they explain the plain model's network.

    Raises:
        RepositoryError: The plain model's newest version cannot be read.
    """
    maps = f"{name}{SUFFIX}"
    if not has_maps(repository, maps):
        return None
    newest = repo.newest_version(repository, maps)
    wanted = read_version(repository, name, repo.newest_version(repository, name)).manifest.source_sha256
    explained = _sources(repository / maps)
    if explained.get(newest) == wanted:
        return None
    fitting = (version for version, source in explained.items() if source == wanted)
    return LeftBehind(name=maps, fitting=max(fitting, default=None))


def _sources(model: Path) -> dict[int, str]:
    """The trained files' hashes by version, of the versions that can be read."""
    found = {}
    for folder in version_folders(model):
        with suppress(OSError, ValueError):
            found[int(folder.name)] = read_manifest(folder / MANIFEST).source_sha256
    return found


def published_models(repository: Path) -> list[str]:
    """Names of the public models.

    Raises:
        RepositoryError: There is no such repository.
    """
    if not repository.is_dir():
        msg = f"there is no model repository {repository}: name its folder"
        raise RepositoryError(msg)
    folders = sorted(folder for folder in repository.iterdir() if folder.is_dir())
    return [folder.name for folder in folders if any((v / COPIES).is_dir() for v in version_folders(folder))]
