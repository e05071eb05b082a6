"""The manifest: which files make up a published model version, and their hashes.

It lies in the ensemble's version folder (``chest_xray/1/manifest.json``) and
covers the ensemble and all its steps. The exporter writes it, the server
refuses to become ready when a served file differs from it.

While a version is being published its manifest also lies in the repository
itself (``PENDING``): what is replaced meanwhile may be as the old version or
as the new one has it, and the ensemble's configuration says which is served.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec

from radserve.contracts._tensors import Name, Struct

MANIFEST = "manifest.json"
PENDING = ".publishing.json"
CONFIG = "config.pbtxt"

_SERVED = re.compile(r"^\s*versions: *(\d+)", re.MULTILINE)  # as the exporter writes version policies

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Manifest(Struct, frozen=True, kw_only=True):
    """One published version of a public model.

    Attributes:
        schema_version: Version of this structure.
        name: The public model's name.
        version: Its version.
        models: The model folders it consists of: the ensemble and its steps.
        files: SHA-256 of every file of the version, by path in the repository.
        source_sha256: SHA-256 of the trained model file.
        tools: Versions of what made the files.
        parity: What the parity gate measured.
        calibration: The fitted temperature, and calibration errors before and after.
        evaluation: Accuracy through the whole path, if the spec asked for it.
        restores: The version whose content a rollback published again.
    """

    schema_version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    name: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    models: tuple[Name, ...]
    files: dict[str, Sha256]
    source_sha256: Sha256
    tools: dict[str, str]
    parity: dict[str, Any] = msgspec.field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    restores: Annotated[int, msgspec.Meta(ge=1)] | None = None


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest, the same bytes each time."""
    text = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2)
    path.write_bytes(text + b"\n")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ValueError: It is not one.
        OSError: It cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.DecodeError as error:
        msg = f"{path.parent.parent.name}/{path.parent.name}/{path.name} is malformed: {error}"
        raise ValueError(msg) from error


def version_folders(model: Path) -> list[Path]:
    """A model's version folders, oldest first."""
    if not model.is_dir():
        return []
    found = [entry for entry in model.iterdir() if entry.is_dir() and entry.name.isdecimal() and int(entry.name) > 0]
    return sorted(found, key=lambda entry: int(entry.name))


def latest_manifests(repository: Path) -> list[Path]:
    """The newest manifest of every public model in a repository."""
    return [paths[0] for paths in _manifests(repository)]


def _manifests(repository: Path) -> list[list[Path]]:
    """For each public model its manifests, newest first."""
    found = []
    for model in sorted(entry for entry in repository.iterdir() if entry.is_dir()):
        paths = [folder / MANIFEST for folder in version_folders(model) if (folder / MANIFEST).is_file()]
        if paths:
            found.append(paths[::-1])
    return found


def pending_manifest(repository: Path) -> Manifest | None:
    """The version that is being published, or whose publishing was cut short; None if it is served already.

    Raises:
        ValueError: Its manifest is malformed.
        OSError: It cannot be read.
    """
    path = repository / PENDING
    if not path.is_file():
        return None
    manifest = read_manifest(path)
    config = f"{manifest.name}/{CONFIG}"
    is_served = (repository / config).is_file() and hash_file(repository / config) == manifest.files.get(config)
    return None if is_served else manifest


def verify_repository(repository: Path, *, served_only: bool = False) -> list[str]:
    """Compare every file of every version with the manifests.

    A model's configuration, and whatever lies beside it, is compared with the
    newest manifest that names the model: that may be an older one for a step
    which newer versions do without. Version folders are compared with their
    own versions' manifests, as steps serve older versions, too.

    Args:
        repository: The model repository's folder.
        served_only: Leave out versions that no configuration serves: only a
            rollback to one of them needs its files.

    Returns:
        One line per difference; empty where all is as published. Files that
        Triton would read but no manifest names are differences too.
    """
    problems: list[str] = []
    covered: set[str] = set()
    wanted: dict[str, str] = {}
    newer: dict[str, set[str]] = {}
    coming: Manifest | None = None
    try:
        coming = pending_manifest(repository)
    except (ValueError, OSError) as error:
        problems.append(str(error))
    for path in [path for paths in _manifests(repository) for path in paths]:
        if coming is not None and path.parent == repository / coming.name / str(coming.version):
            continue
        try:
            manifest = read_manifest(path)
        except (ValueError, OSError) as error:
            own = newer.get(path.parent.parent.name, ())
            if not (served_only and own) or any(_serves(repository / model, path.parent.name) for model in own):
                problems.append(str(error))
            continue
        newer.setdefault(manifest.name, set()).update(manifest.models)
        models = set(manifest.models) - covered
        if manifest.name in covered:  # steps that newer versions do without go when they are no longer kept
            models = {name for name in models if (repository / name).is_dir()}
        covered |= models
        wanted = _files(manifest, models, covered) | wanted
    if coming is not None:
        covered |= {name for name in coming.models if (repository / name).is_dir()}
    if served_only:
        wanted = {name: digest for name, digest in wanted.items() if _is_served(repository, name)}
    problems += _verify_models(repository, covered, wanted, coming.files if coming else {})
    folders = {entry.name for entry in repository.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    problems += [f"{name}: no manifest covers this model" for name in sorted(folders - covered)]
    return problems


def _is_served(repository: Path, file: str) -> bool:
    """Whether a file is a model's in all versions, or of a version that is served."""
    model, version = (*PurePosixPath(file).parts, "")[:2]
    return not version.isdecimal() or _serves(repository / model, version)


def _serves(model: Path, version: str) -> bool:
    """Whether a model's configuration names a version; one that names none may serve any."""
    try:
        named = _SERVED.findall((model / CONFIG).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return True
    return not named or version in named


def _files(manifest: Manifest, models: set[str], covered: set[str]) -> dict[str, str]:
    """A manifest's files: all of some models, and of the others what lies in its own version's folders."""
    found = {}
    for name, digest in manifest.files.items():
        model, version = (*PurePosixPath(name).parts, "")[:2]
        if model in models or (model in covered and version == str(manifest.version)):
            found[name] = digest
    return found


def _verify_models(repository: Path, models: set[str], wanted: dict[str, str], coming: dict[str, str]) -> list[str]:
    """Compare folders with the files that must be there, and those that may be."""
    problems = []
    root = repository.resolve()
    allowed = {name for name in coming if PurePosixPath(name).parts[0] in models}
    for name in sorted(wanted.keys() | allowed):
        path = repository.joinpath(*PurePosixPath(name).parts)
        if not path.resolve().is_relative_to(root):
            problems.append(f"{name}: leaves the repository")
        elif not path.is_file():
            if name in wanted:
                problems.append(f"{name}: missing")
        elif hash_file(path) not in (wanted.get(name), coming.get(name)):
            problems.append(f"{name}: differs from what was published")
    versions = {PurePosixPath(name).parts[:2] for name in wanted.keys() | allowed}
    for model in sorted(models):
        for path in sorted((repository / model).rglob("*")):
            relative = path.relative_to(repository)
            # What is left of a version whose manifest is gone is served by nothing.
            superseded = relative.parts[1].isdecimal() and relative.parts[:2] not in versions
            ignored = superseded or path.is_dir() or path.name == MANIFEST or "__pycache__" in relative.parts
            if not ignored and relative.as_posix() not in wanted.keys() | allowed:
                problems.append(f"{relative.as_posix()}: not in the manifest")
    return problems
