"""Puts a staged version in place: a reader sees the old version or the new one, never something between.

Version folders are renamed into place; nothing reads them yet, as no
configuration names them. Then the steps' configurations are replaced, by ones
that serve the old version, too. The last renaming is that of the public
model's configuration: before it, the old version is served, after it the new.
What is replaced in between is what the manifest in ``PENDING`` says, so that
whoever verifies the repository meanwhile, or after a power cut, can tell.
What an exporter that was killed leaves, the next one takes back or finishes.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from radserve.contracts.manifest import (
    CONFIG,
    MANIFEST,
    PENDING,
    hash_file,
    latest_manifests,
    pending_manifest,
    read_manifest,
    version_folders,
    write_manifest,
)
from radserve.errors import RepositoryError
from radserve_export.summary import SUMMARY_FILE, summarise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from radserve.contracts.manifest import Manifest

NUMBERS = ".numbers.json"
"""File in the repository: highest version numbers of models whose folders may be deleted without their plain model."""

COPIES = "configs"
"""Folder in the public model's version folder: its configuration and its steps', as they were published."""

_SPARE_BYTES = 2**18


def publish(staged: Path, repository: Path, manifest: Manifest) -> None:
    """Rename a staged version into place; whatever interrupts it, the repository is as before.

    Args:
        staged: Holds the files of the manifest.
        repository: The model repository; made if it is not there.
        manifest: Which models, in which version; the first one is the public model.

    Raises:
        RepositoryError: It cannot be written.
    """
    _check_places(repository, manifest)
    public, *steps = manifest.models
    version = str(manifest.version)
    is_new = not repository.exists()
    spare = staged / "spare"
    try:
        with explained(f"cannot write to {repository}"):
            if is_new:
                repository.mkdir()
            replaced = [repository / SUMMARY_FILE, *(repository / name / CONFIG for name in manifest.models)]
            _reserve(spare, sum(path.stat().st_size for path in replaced if path.is_file()))
            write_manifest(manifest, staged / PENDING)
            _put(staged / PENDING, repository / PENDING)
            known = {name for name in manifest.models if (repository / name).exists()}
            for name in steps:
                place = (name, version) if name in known else (name,)
                staged.joinpath(*place).rename(repository.joinpath(*place))
            if public in known:
                (staged / public / version).rename(repository / public / version)
            for name in steps:
                if name in known:
                    _put(staged / name / CONFIG, repository / name / CONFIG)
            if public in known:
                _put(staged / public / CONFIG, repository / public / CONFIG)
            else:
                (staged / public).rename(repository / public)
            sync(repository)
            _finish(repository, staged)
    except BaseException:
        with explained(f"{repository}: the next export takes back version {version} of {public}"):
            spare.unlink(missing_ok=True)
            _undo(repository, manifest, staged)
        if is_new and repository.exists():
            repository.rmdir()
        raise


def withdraw(repository: Path, manifest: Manifest, bin_folder: Path) -> None:
    """Take back a version that was published just now, to be used under the same lock.

    Args:
        repository: The model repository.
        manifest: What was published.
        bin_folder: A folder on the same file system.

    Raises:
        RepositoryError: It cannot be written.
    """
    with explained(f"{repository}: version {manifest.version} of {manifest.name} cannot be taken back"):
        _undo(repository, manifest, bin_folder)
        if not any(repository.iterdir()):
            repository.rmdir()


def kept_number(repository: Path, name: str) -> int:
    """The highest version number that is kept of a model, 0 if none is.

    Raises:
        RepositoryError: The file cannot be read.
    """
    path = repository / NUMBERS
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int]).get(name, 0)
    except FileNotFoundError:
        return 0
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"{path} cannot be read: restore it from a copy: {error}"
        raise RepositoryError(msg) from error


def keep_number(repository: Path, name: str, number: int, staged: Path) -> None:
    """Keep a number, whatever becomes of the model's folders. To be used under the lock, before it is published.

    Args:
        repository: The model repository.
        name: The public model.
        number: Its version.
        staged: A folder on the same file system.

    Raises:
        RepositoryError: It cannot be read or written.
    """
    path = repository / NUMBERS
    if number <= kept_number(repository, name):
        return
    with explained(f"cannot write to {repository}"):
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, int]) if path.exists() else {}
        numbers = msgspec.json.encode(known | {name: number}, order="sorted")
        (staged / NUMBERS).write_bytes(numbers + b"\n")
        _put(staged / NUMBERS, path)


def recover(repository: Path, bin_folder: Path) -> None:
    """Take back, or finish, what an exporter that was killed was publishing. To be used under the lock.

    Args:
        repository: The model repository.
        bin_folder: An empty folder on the same file system.

    Raises:
        RepositoryError: It cannot be written, or what to restore is not there.
    """
    if not (repository / PENDING).exists():
        return
    with explained(f"cannot write to {repository}"):
        try:
            coming = pending_manifest(repository)
        except ValueError as error:
            msg = f"{repository}: {error}: restore the repository"
            raise RepositoryError(msg) from error
        if coming is None:
            _finish(repository, bin_folder)
        else:
            _undo(repository, coming, bin_folder)


def prune(repository: Path, name: str, keep: int, bin_folder: Path) -> None:
    """Remove the oldest versions of a public model, and steps that none of the others has.

    A version whose manifest is malformed stays; is it one of those to keep, all
    stay, as any step might be its own.

    Args:
        repository: The model repository.
        name: The public model.
        keep: How many versions stay, the current one included; 2 at least, as
            steps serve the version before, too.
        bin_folder: A folder on the same file system.

    Raises:
        RepositoryError: They cannot be removed.
    """
    folders = version_folders(repository / name)
    gone, kept = folders[:-keep], folders[-keep:]
    with explained(f"{repository}: version {folders[-1].name} of {name} is published, but old ones cannot be removed"):
        models = {folder: _models(folder) for folder in folders}
        if not all(models[folder] for folder in kept):
            return
        used = {model for folder in kept for model in models[folder]}
        for folder in gone:
            own = models[folder]
            for model in own:
                if model not in used:
                    _bin(repository / model, bin_folder / f"{model}-{folder.name}")
            # The manifest goes before the files that it names: whoever verifies meanwhile misses none.
            for model in own:
                if model in models[kept[-1]]:  # an unused step's configuration may still name this version
                    _bin(repository / model / folder.name, bin_folder / f"{model}-{folder.name}")


def _models(folder: Path) -> tuple[str, ...]:
    """The models of a version, the public one first; none if its manifest is malformed."""
    try:
        return read_manifest(folder / MANIFEST).models
    except ValueError:
        return ()


def _check_places(repository: Path, manifest: Manifest) -> None:
    """What must not be overwritten: other models, and published versions."""
    own = {manifest.name}
    folders = version_folders(repository / manifest.name)
    for folder in folders:
        if (folder / MANIFEST).is_file():
            own |= set(_models(folder))
    for name in manifest.models:
        if (repository / name).exists() and name not in own:
            msg = f"{repository / name} is no part of {manifest.name}: delete it, or choose another name"
            raise RepositoryError(msg)
        if (repository / name / str(manifest.version)).exists():
            msg = f"{repository / name / str(manifest.version)} exists already: a published version is never changed"
            raise RepositoryError(msg)
    if (repository / manifest.name).exists() and not (folders and (folders[-1] / COPIES).is_dir()):
        parts = ", ".join(sorted(own))
        msg = f"{repository}: {manifest.name} has no copies of its configurations: delete {parts} and export it anew"
        raise RepositoryError(msg)


def _finish(repository: Path, bin_folder: Path) -> None:
    """What remains to be done when the new version is served."""
    _renew_summary(repository, bin_folder)
    (repository / PENDING).unlink()
    sync(repository)


def _undo(repository: Path, manifest: Manifest, bin_folder: Path) -> None:
    """Go back, in the opposite order; what was interrupted while undoing can be undone again."""
    version = str(manifest.version)
    new = set()
    for name in manifest.models:
        if any(folder.name != version for folder in version_folders(repository / name)):
            _restore_config(repository, manifest, name, bin_folder)
        else:
            new.add(name)
    for name in manifest.models:
        place = (name,) if name in new else (name, version)
        _bin(repository.joinpath(*place), bin_folder / f"{name}-undone")
    if repository.exists():
        _renew_summary(repository, bin_folder)
        (repository / PENDING).unlink(missing_ok=True)
        sync(repository)


def _restore_config(repository: Path, manifest: Manifest, name: str, bin_folder: Path) -> None:
    path = repository / name / CONFIG
    if hash_file(path) != manifest.files[f"{name}/{CONFIG}"]:
        return
    older = [f for f in version_folders(repository / manifest.name) if int(f.name) < manifest.version]
    copies = [copy for folder in reversed(older) if (copy := folder / COPIES / f"{name}.pbtxt").is_file()]
    if not copies:
        msg = f"{path} was to be replaced when an export was interrupted, and there is no copy of it: restore it"
        raise RepositoryError(msg)
    shutil.copyfile(copies[0], bin_folder / CONFIG)
    _put(bin_folder / CONFIG, path)


def _renew_summary(repository: Path, bin_folder: Path) -> None:
    path = repository / SUMMARY_FILE
    if not latest_manifests(repository):
        path.unlink(missing_ok=True)
        return
    made = summarise(repository)
    if path.exists() and path.read_bytes() == made:
        return
    new = bin_folder / SUMMARY_FILE
    new.write_bytes(made)
    _put(new, path)


def _reserve(path: Path, replaced_bytes: int) -> None:
    """Hold the room that going back takes, for old configurations and summary: the disk may be full by then."""
    with path.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, _SPARE_BYTES + replaced_bytes)


def _put(new: Path, path: Path) -> None:
    """Replace a file at once, through to the disk."""
    sync(new)
    new.replace(path)
    sync(path.parent)


def _bin(path: Path, place: Path) -> None:
    """Out of the readers' sight at once; removed with the folder it comes to lie in."""
    if path.exists():
        path.rename(place)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Tell what could not be done.

    Raises:
        RepositoryError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        msg = f"{what}: {error.strerror or error}"
        raise RepositoryError(msg) from error
