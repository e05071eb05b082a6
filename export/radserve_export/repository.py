"""A model repository as an exporter works with it: one at a time, and beside it until all is checked.

Files are written to a staging folder on the same file system, to be renamed
into place (``publication``). The lock is the kernel's, so a killed exporter
leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.contracts.manifest import MANIFEST, hash_file, read_manifest, version_folders, write_manifest
from radserve.errors import RepositoryError
from radserve_export.publication import explained, recover, sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from radserve.contracts.manifest import Manifest


def newest_version(repository: Path, model: str) -> int:
    """The newest version folder of a model, 0 if it has none."""
    folders = version_folders(repository / model)
    return int(folders[-1].name) if folders else 0


def version_before(repository: Path, model: str, version: int) -> int | None:
    """The newest version folder of a model that is older than a version."""
    older = [int(folder.name) for folder in version_folders(repository / model) if int(folder.name) < version]
    return older[-1] if older else None


def no_such_model(repository: Path, name: str) -> RepositoryError:
    """What to raise where a repository has no public model of a name; it says which there are."""
    public = sorted({manifest.parents[1].name for manifest in repository.glob(f"*/*/{MANIFEST}")})
    there = f"it has {', '.join(public)}" if public else "name a folder that 'radserve export' wrote (--repository)"
    return RepositoryError(f"{repository} has no public model {name}: {there}")


def is_published(repository: Path, name: str, version: int, hashes: Mapping[str, str]) -> bool:
    """Whether a version consists of just these files.

    Args:
        repository: The model repository.
        name: The public model.
        version: The version to compare with.
        hashes: SHA-256 by path in the repository.

    Raises:
        RepositoryError: It does by its manifest, but a file was changed since.
    """
    try:
        manifest = read_manifest(repository / name / str(version) / MANIFEST)
    except (OSError, ValueError):
        return False
    if manifest.files != hashes:
        return False
    for file, expected in hashes.items():
        path = repository / file
        if not path.is_file() or hash_file(path) != expected:
            msg = f"{path} is not what was published: restore it, or delete the models {', '.join(manifest.models)}"
            raise RepositoryError(msg)
    return True


def manifest_of(repository: Path, name: str, version: int) -> Manifest:
    """What was written when a version was published."""
    return read_manifest(repository / name / str(version) / MANIFEST)


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Keep other exporters out, and clear up after one that was killed.

    Raises:
        RepositoryError: Another one is at work, or the lock cannot be written.
    """
    path = _beside(repository) / f".{repository.name}.lock"
    with explained(f"cannot write beside {repository}"):
        repository.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # An exporter that finished just now may have removed the file that was opened.
            held = path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino
        except BlockingIOError:
            held = False
        if not held:
            msg = f"another export is writing to {repository}: wait for it to finish"
            raise RepositoryError(msg)
        try:
            if repository.is_dir():
                with staging(repository) as bin_folder:
                    recover(repository, bin_folder)
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """A folder on the repository's file system that is gone afterwards. To be used under the lock.

    Raises:
        RepositoryError: It cannot be made.
    """
    beside = _beside(repository)
    prefix = f".{repository.name}.staging-"
    with explained(f"cannot write beside {repository}"):
        for left in beside.iterdir():
            if left.name.startswith(prefix):  # of an exporter that was killed: the lock is ours
                shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_staged(staged: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write files below a staging folder, through to the disk.

    Args:
        staged: The staging folder.
        files: Contents by path.

    Returns:
        SHA-256 by path, of what the disk holds.
    """
    hashes = {}
    with explained(f"cannot write to {staged.parent}"):
        for name, content in files.items():
            path = staged / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            sync(path)
            hashes[name] = hash_file(path)
    return hashes


def write_staged_manifest(staged: Path, manifest: Manifest) -> None:
    """Write the manifest into the ensemble's staged version folder, through to the disk."""
    path = staged / manifest.name / str(manifest.version) / MANIFEST
    with explained(f"cannot write to {staged.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(manifest, path)
        sync(path)
        sync(path.parent)


def add_older_versions(staged: Path, repository: Path, manifest: Manifest) -> None:
    """Complete a staged version for being served: its steps may serve the version before, too.

    The files are linked, and stay behind when the version is published.
    """
    with explained(f"cannot write to {staged.parent}"):
        for name in manifest.models[1:]:
            older = version_before(repository, name, manifest.version)
            if older is not None:
                source = repository / name / str(older)
                shutil.copytree(source, staged / name / str(older), copy_function=link)


def link(source: str | Path, target: str | Path) -> None:
    """Give a file that never changes a second name; copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _beside(repository: Path) -> Path:
    """Where renaming into the repository is possible: beside it, inside it where it is a mount point."""
    return repository if os.path.ismount(repository) else repository.parent
