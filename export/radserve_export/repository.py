"""Writes a model repository: all of a version, or nothing.

Files are written to a staging folder on the same file system and renamed into
place, steps first and the ensemble last: a reader never sees an ensemble whose
steps are missing. What goes wrong on the way is undone. The lock is the
kernel's, so a killed exporter leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radserve.contracts.manifest import MANIFEST, hash_file, read_manifest, version_folders, write_manifest
from radserve.errors import RepositoryError
from radserve_export.summary import SUMMARY_FILE, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from radserve.contracts.manifest import Manifest


def newest_version(repository: Path, model: str) -> int:
    """The newest version folder of a model, 0 if it has none."""
    folders = version_folders(repository / model)
    return int(folders[-1].name) if folders else 0


def version_before(repository: Path, model: str, version: int) -> int | None:
    """The newest version folder of a model that is older than a version."""
    older = [int(folder.name) for folder in version_folders(repository / model) if int(folder.name) < version]
    return older[-1] if older else None


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


def evaluation_of(repository: Path, name: str, version: int) -> dict[str, Any] | None:
    """What was measured through the whole path when a version was published."""
    return read_manifest(repository / name / str(version) / MANIFEST).evaluation


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Keep other exporters out.

    Raises:
        RepositoryError: Another one is at work, or the lock cannot be written.
    """
    path = _beside(repository) / f".{repository.name}.lock"
    with _explained(f"cannot write beside {repository}"):
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
    with _explained(f"cannot write beside {repository}"):
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
    with _explained(f"cannot write to {staged.parent}"):
        for name, content in files.items():
            path = staged / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            _sync(path)
            hashes[name] = hash_file(path)
    return hashes


def write_staged_manifest(staged: Path, manifest: Manifest) -> None:
    """Write the manifest into the ensemble's staged version folder, through to the disk."""
    path = staged / manifest.name / str(manifest.version) / MANIFEST
    with _explained(f"cannot write to {staged.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(manifest, path)
        _sync(path)
        _sync(path.parent)


def add_older_versions(staged: Path, repository: Path, manifest: Manifest) -> None:
    """Complete a staged version for being served: its steps may serve the version before, too.

    The files are linked, and stay behind when the version is published.
    """
    with _explained(f"cannot write to {staged.parent}"):
        for name in manifest.models[1:]:
            older = version_before(repository, name, manifest.version)
            if older is not None:
                source = repository / name / str(older)
                shutil.copytree(source, staged / name / str(older), copy_function=os.link)


def publish(staged: Path, repository: Path, manifest: Manifest) -> None:
    """Rename a staged version into place; whatever interrupts it, the repository is as before.

    Args:
        staged: Holds the files of the manifest.
        repository: The model repository; made if it is not there.
        manifest: Which models, in which version; the first one is the ensemble.

    Raises:
        RepositoryError: It cannot be written.
    """
    undo: list[Callable[[], object]] = []
    ensemble, *steps = manifest.models
    try:
        with _explained(f"cannot write to {repository}"):
            if not repository.exists():
                undo.append(lambda: repository.rmdir() if repository.exists() else None)
                repository.mkdir()
            for name in (*steps, ensemble):
                _place(staged / name, repository / name, str(manifest.version), undo)
            _renew_summary(repository, staged, undo)
            _sync(repository)
    except BaseException:
        for step in reversed(undo):
            step()
        raise


def _place(source: Path, target: Path, version: str, undo: list[Callable[[], object]]) -> None:
    if not target.exists():
        undo.append(lambda: _rename_if_there(target, source))
        source.rename(target)
        return
    destination = target / version
    if destination.exists():
        msg = f"{destination} exists already: a published version is never changed"
        raise RepositoryError(msg)
    undo.append(lambda: _rename_if_there(destination, source / version))
    (source / version).rename(destination)
    kept = source / "replaced"
    kept.mkdir()
    undo.append(lambda: [old.replace(target / old.name) for old in kept.iterdir()])
    new = {path.name for path in source.iterdir() if path.is_file()}
    for old in [path for path in target.iterdir() if path.is_file()]:
        # A second name keeps the old content; the rename below replaces the first one at once.
        os.link(old, kept / old.name)
        if old.name not in new:
            old.unlink()
    for name in sorted(new):
        if not (kept / name).exists():
            undo.append(lambda name=name: (target / name).unlink(missing_ok=True))  # type: ignore[misc]
        (source / name).replace(target / name)
    _sync(target)


def _renew_summary(repository: Path, staged: Path, undo: list[Callable[[], object]]) -> None:
    path, kept = repository / SUMMARY_FILE, staged / SUMMARY_FILE
    new = staged / f"new-{SUMMARY_FILE}"
    new.write_bytes(summarise(repository))
    _sync(new)
    if path.exists():
        os.link(path, kept)
    undo.append(lambda: kept.replace(path) if kept.exists() else path.unlink(missing_ok=True))
    new.replace(path)


def _rename_if_there(path: Path, back: Path) -> None:
    if path.exists() and not back.exists():
        path.rename(back)


def _beside(repository: Path) -> Path:
    """Where renaming into the repository is possible: beside it, inside it where it is a mount point."""
    return repository if os.path.ismount(repository) else repository.parent


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"{what}: {error.strerror or error}"
        raise RepositoryError(msg) from error
