"""Looks into a ``.keras`` archive without running anything of it.

Keras' safe mode is not a boundary (CVE-2025-1550, CVE-2025-8747, CVE-2025-9906):
a configuration may name any importable module. So only what is known to be
harmless passes: the members Keras itself writes, and the classes of Keras'
own layer, initialiser and operation modules.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import PurePosixPath
from typing import TypeAlias

import h5py

from radserve.errors import ConversionError, UntrustedModelError

MAX_BYTES = 4 * 2**30
_MAX_CONFIG_BYTES = 64 * 2**20
_MEMBERS = frozenset({"metadata.json", "config.json", "model.weights.h5"})
_MODULES = frozenset(
    {"keras"}
    | {f"keras.{part}" for part in ("activations", "constraints", "dtype_policies", "initializers", "layers")}
    | {f"keras.{part}" for part in ("losses", "metrics", "models", "ops", "optimizers", "quantizers", "regularizers")}
    | {"keras.optimizers.schedules"}
)
_INNER_MODULES = ("keras.src.layers.", "keras.src.models.", "keras.src.ops.", "keras.src.dtype_policies.")
_REFUSED_CLASSES = {
    "Lambda": "a Lambda layer holds Python code",
    "__lambda__": "it holds Python code",
    "TFSMLayer": "the layer reads a SavedModel from disk, which holds code",
    "TorchModuleWrapper": "the layer unpickles a torch module",
    "JaxLayer": "the layer holds foreign code",
    "FlaxLayer": "the layer holds foreign code",
}

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


def check_archive(content: bytes, name: str) -> None:
    """Refuse an archive that could do more than describe layers and hold weights.

    Args:
        content: The file's bytes.
        name: What to call it in messages.

    Raises:
        ConversionError: It is not a Keras archive.
        UntrustedModelError: What is refused, and why.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_members(archive, name)
            config = archive.read("config.json")
            weights = archive.read("model.weights.h5")
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        msg = f"{name} is not a .keras archive, or a damaged one: save the model again with model.save('NAME.keras')"
        raise ConversionError(msg) from error
    try:
        _check_config(json.loads(config), name)
    except (ValueError, RecursionError) as error:
        msg = f"{name}: config.json is not one that Keras writes"
        raise UntrustedModelError(msg) from error
    _check_weights(weights, name)


def _refuse(name: str, what: str, why: str) -> UntrustedModelError:
    return UntrustedModelError(f"{name} was not loaded: {what}: {why}")


def _check_members(archive: zipfile.ZipFile, name: str) -> None:
    total = 0
    seen: set[str] = set()
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        shown = f"member {member.filename!r}"
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise _refuse(name, shown, "it leaves the archive's folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise _refuse(name, shown, "it is a link")
        if member.filename in seen:
            raise _refuse(name, shown, "it is there twice")
        seen.add(member.filename)
        # Vocabularies are the assets that Keras' own layers write.
        asset = path.parts[0] == "assets" and (member.is_dir() or path.suffix == ".txt")
        if member.filename not in _MEMBERS and not asset:
            raise _refuse(name, shown, "Keras writes no such member")
        total += member.file_size
        if total > MAX_BYTES or (member.filename == "config.json" and member.file_size > _MAX_CONFIG_BYTES):
            raise _refuse(name, shown, "it is too large")


def _check_config(value: Json, name: str) -> None:
    if isinstance(value, list):
        for item in value:
            _check_config(item, name)
    elif isinstance(value, dict):
        if "class_name" in value:
            _check_class(value, name)
        for item in value.values():
            _check_config(item, name)


def _check_class(described: dict[str, Json], name: str) -> None:
    class_name = described["class_name"]
    module = described.get("module")
    what = f"{class_name} of {module}" if module else str(class_name)
    if not isinstance(class_name, str) or not isinstance(module, str | None):
        raise _refuse(name, what, "it is not a class")
    if class_name in _REFUSED_CLASSES:
        raise _refuse(name, _layer(described, class_name), _REFUSED_CLASSES[class_name])
    # A custom object carries a registered name; one without a module is looked up among them, too.
    custom = described.get("registered_name") not in (None, class_name) or (module is None and "module" in described)
    known = module in _MODULES or (module or "").startswith(_INNER_MODULES)
    if custom or not (known or (module is None and class_name.startswith("__"))):
        raise _refuse(name, what, "only Keras' own classes are loaded")
    config = described.get("config")
    if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        raise _refuse(name, _layer(described, class_name), "it reads its vocabulary from a file")


def _layer(described: dict[str, Json], class_name: str) -> str:
    config = described.get("config")
    label = config.get("name") if isinstance(config, dict) else None
    return f"layer {label!r} ({class_name})" if label else class_name


def _check_weights(content: bytes, name: str) -> None:
    total = 0
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            pending = [file["/"]]
            while pending:
                group = pending.pop()
                for key in group:
                    where = f"weights {group.name.rstrip('/')}/{key}"
                    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                        raise _refuse(name, where, "it is a link")
                    item = group[key]
                    if isinstance(item, h5py.Group):
                        pending.append(item)
                        continue
                    if item.external or item.is_virtual:
                        raise _refuse(name, where, "it reads another file")
                    total += item.size * item.dtype.itemsize
                    if total > MAX_BYTES:
                        raise _refuse(name, where, "it is too large")
    except (OSError, RuntimeError, AttributeError, KeyError) as error:
        msg = f"{name}: its weights are damaged: save the model again with model.save('NAME.keras')"
        raise ConversionError(msg) from error
