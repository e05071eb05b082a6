"""The file of a trained model, copied first: what was looked at is what is loaded."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import IO

from radserve.errors import ConversionError, SpecError, UntrustedModelError

MAX_BYTES = 4 * 2**30
SAVED_MODEL = "saved_model.pb"
_MAX_MEMBERS = 10_000
_CHUNK = 1 << 20


def copy_model(path: Path, folder: Path, *, trust: bool) -> tuple[Path, str]:
    """Copy a model file, or a SavedModel folder, by its bytes alone.

    Args:
        path: A ``.keras`` archive, an HDF5 file or a SavedModel folder.
        folder: Where to; empty.
        trust: Take formats that cannot be looked at in full (HDF5).

    Returns:
        The copy, of the same name, and its SHA-256: that of the file, or of
        each member's path and SHA-256 in the order of the paths.

    Raises:
        SpecError: It cannot be read.
        UntrustedModelError: A link, something too large, or a format that needs trust.
        ConversionError: It is not a Keras model.
    """
    copy = folder / path.name
    try:
        if (path / SAVED_MODEL).exists():
            return copy, _copy_folder(path, copy)
        if path.suffix not in (".keras", ".h5", ".hdf5") or path.is_dir():
            msg = f"{path.name} is not a Keras model file: save the model with model.save('NAME.keras')"
            raise ConversionError(msg)
        if path.suffix != ".keras" and path.exists() and not trust:
            msg = (
                f"{path.name}: an HDF5 model can run code while it is loaded, and cannot be looked at first:"
                " save it again as .keras, or say --trust if you made it yourself"
            )
            raise UntrustedModelError(msg)
        return copy, _copy_file(path, copy, MAX_BYTES, path.name)[0]
    except OSError as error:
        msg = f"cannot read the model {path}: {error.strerror}"
        raise SpecError(msg) from error


def _copy_file(path: Path, copy: Path, most: int, name: str, flags: int = 0) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    # Opening a named pipe must not wait for its other end.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags), "rb") as source:
        _regular(source, name)
        with copy.open("xb") as target:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > most:
                    msg = f"{name} was not loaded: it is too large (more than {MAX_BYTES >> 30} GiB)"
                    raise UntrustedModelError(msg)
                digest.update(chunk)
                target.write(chunk)
    return digest.hexdigest(), size


def _regular(source: IO[bytes], name: str) -> None:
    if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
        msg = f"{name} was not loaded: it is not a file"
        raise UntrustedModelError(msg)


def _copy_folder(path: Path, copy: Path) -> str:
    copy.mkdir()
    left, digest = MAX_BYTES, hashlib.sha256()
    for member in _members(path):
        name = f"{path.name}: member {member.as_posix()!r}"
        (copy / member).parent.mkdir(parents=True, exist_ok=True)
        sha256, size = _copy_file(path / member, copy / member, left, name, os.O_NOFOLLOW)
        left -= size
        digest.update(f"{member.as_posix()}\0{sha256}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _members(root: Path) -> list[Path]:
    """Paths of all files below a folder, relative to it, sorted."""
    found: list[Path] = []
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                member = Path(entry.path).relative_to(root)
                if entry.is_symlink():
                    msg = f"{root.name} was not loaded: member {member.as_posix()!r}: it is a link"
                    raise UntrustedModelError(msg)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(root / member)
                else:
                    found.append(member)
        if len(found) + len(pending) > _MAX_MEMBERS:
            msg = f"{root.name} was not loaded: it has more than {_MAX_MEMBERS} members"
            raise UntrustedModelError(msg)
    return sorted(found)
