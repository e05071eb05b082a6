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
from radserve_export.publication import COPIES, keep_number, publish
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
        RepositoryError: There is no such model or version, its content is served
            already, its files were changed, or the repository cannot be written.
    """
    with repo.locked(repository):
        newest = repo.newest_version(repository, name)
        if not newest:
            raise repo.no_such_model(repository, name)
        current = read_version(repository, name, newest)
        older = read_version(repository, name, _target(repository, current) if to is None else to)
        if older.manifest.version == newest:
            msg = f"version {newest} of {name} is the one that is served: choose an older one"
            raise RepositoryError(msg)
        if _content_of(older) == _content_of(current):
            msg = (
                f"version {newest} of {name}, which is served, has the content of version {older.manifest.version}"
                " already: nothing to do"
            )
            raise RepositoryError(msg)
        version = max(repo.newest_version(repository, model) for model in current.manifest.models) + 1
        _publish_again(repository, older, current, version)
    return RolledBack(name=name, version=version, restored=older.manifest.version, replaced=newest)


def _content_of(version: Version) -> int:
    """The version that its content was published as first."""
    return version.manifest.restores or version.manifest.version


def _target(repository: Path, current: Version) -> int:
    present, newest = _content_of(current), current.manifest.version
    target = repo.version_before(repository, current.manifest.name, present)
    if target is None:
        served = f"version {newest}" + (f", which has the content of version {present}," if present < newest else "")
        newer = "" if present == newest else ": name a newer one with --to"
        msg = f"{current.manifest.name}: {served} is served, and nothing older is kept{newer}"
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
            restores=_content_of(older),
        )
        repo.write_staged_manifest(staged, manifest)
        if has_maps(repository, manifest.name):
            keep_number(repository, manifest.name, version, staged)
        publish(staged, repository, manifest)


@dataclass(frozen=True, kw_only=True)
class LeftBehind:
    """A plain model and its evidence maps, after one of them was rolled back to another network than the other's.

    Attributes:
        plain: The plain model.
        name: The one of the two that was not rolled back.
        fitting: Its newest version of the other's network; None if it has none.
    """

    plain: str
    name: str
    fitting: int | None


def left_behind(repository: Path, name: str) -> LeftBehind | None:
    """What a rollback of a plain model alone leaves, or of its evidence maps alone.

    Args:
        repository: The model repository.
        name: The one that was rolled back.

    Returns:
        None where there are no two, or they are of the same network.

    Raises:
        RepositoryError: The newest version of what was rolled back cannot be read.
    """
    plain = name.removesuffix(SUFFIX) if has_maps(repository, name) else name
    maps = f"{plain}{SUFFIX}"
    other = maps if name == plain else plain
    newest = repo.newest_version(repository, other)
    if not newest or not has_maps(repository, maps):
        return None
    wanted = read_version(repository, name, repo.newest_version(repository, name)).manifest.source_sha256
    sources = _sources(repository / other)
    if sources.get(newest) == wanted:
        return None
    fitting = (version for version, source in sources.items() if source == wanted)
    return LeftBehind(plain=plain, name=other, fitting=max(fitting, default=None))


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
