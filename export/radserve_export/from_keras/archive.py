"""Looks into a ``.keras`` archive without running anything of it."""

from __future__ import annotations

import json
import stat
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from radserve.errors import ConversionError, UntrustedModelError
from radserve_export.from_keras.configuration import Custom, check_configuration, refusal
from radserve_export.from_keras.hdf5 import check_weights
from radserve_export.model_file import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

_MAX_CONFIG_BYTES = 64 * 2**20
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = frozenset({"metadata.json", _CONFIG, _WEIGHTS})
# Others inflate without a bound on one step.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def check_archive(path: Path, custom: AbstractSet[str] = frozenset()) -> set[Custom]:
    """Refuse an archive that could do more than describe layers and hold weights.

    Args:
        path: The archive, which nobody else can change any more.
        custom: Names of the custom objects that the user gave.

    Returns:
        The custom objects that it names.

    Raises:
        ConversionError: It is not a Keras archive.
        UntrustedModelError: What is refused, and why.
    """
    name = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, name)
            # What a member says of its own size may be a lie: no more than that is inflated.
            config, weights = archive.read(_CONFIG), archive.read(_WEIGHTS)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        msg = f"{name} is not a .keras archive, or a damaged one: save the model again with model.save('NAME.keras')"
        raise ConversionError(msg) from error
    except ValueError as error:  # names that no file system has
        msg = f"{name} was not loaded: it is not an archive that Keras writes"
        raise UntrustedModelError(msg) from error
    try:
        found = check_configuration(json.loads(config), name, custom)
    except (ValueError, RecursionError) as error:
        msg = f"{name}: config.json is not one that Keras writes"
        raise UntrustedModelError(msg) from error
    check_weights(weights, name)
    return found


def _check_members(archive: zipfile.ZipFile, name: str) -> None:
    total = 0
    seen: set[str] = set()
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        shown = f"member {member.filename!r}"
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise refusal(name, shown, "it leaves the archive's folder")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refusal(name, shown, "it is a link")
        if member.filename in seen:
            raise refusal(name, shown, "it is there twice")
        seen.add(member.filename)
        # Vocabularies are the assets that Keras' own layers write.
        asset = path.parts[:1] == ("assets",) and (member.is_dir() or path.suffix == ".txt")
        if (member.filename not in _MEMBERS and not asset) or member.compress_type not in _COMPRESSIONS:
            raise refusal(name, shown, "Keras writes no such member")
        total += member.file_size
        if total > MAX_BYTES or (member.filename == _CONFIG and member.file_size > _MAX_CONFIG_BYTES):
            raise refusal(name, shown, "it is too large")
