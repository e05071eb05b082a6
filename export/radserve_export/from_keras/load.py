"""Loads a trained model whose file is looked at before anything in it is used."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radserve.errors import ConversionError, SpecError, UntrustedModelError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.archive import check_archive
from radserve_export.from_keras.hdf5 import check_hdf5_model
from radserve_export.from_keras.saved_model_check import check_saved_model
from radserve_export.model_file import copy_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from radserve_export.from_keras.configuration import Custom

Loaded = tuple["keras.Model", str]


def load_model(path: Path, *, trust: bool = False, custom_objects: Sequence[str] = ()) -> Loaded:
    """Load a trained Keras model into this process.

    Args:
        path: A ``.keras`` archive, an HDF5 file or a SavedModel folder.
        trust: Take HDF5, which Keras' own safe mode does not cover. It is
            looked at all the same, as every model file is.
        custom_objects: ``module:NAME`` of classes and functions that the model
            may name. Their modules are imported once the file has been looked at.

    Returns:
        The model, and the SHA-256 of its file.

    Raises:
        SpecError: There is no such file, or no such custom object.
        UntrustedModelError: The file could do more than be read, or needs ``trust``.
        ConversionError: It is not a Keras model, or of another Keras.
    """
    with tempfile.TemporaryDirectory(prefix="radserve-model-") as folder:
        copy, sha256 = copy_model(path, Path(folder), trust=trust)
        return load_copy(copy, custom_objects), sha256


def load_copy(path: Path, custom_objects: Sequence[str] = ()) -> keras.Model:
    """Check and load a model that nobody else can change; as load_model."""
    wanted = dict(_split(one) for one in custom_objects)
    if path.is_dir():
        from radserve_export.from_keras.saved_model import as_keras_model  # noqa: PLC0415 - for folders alone

        check_saved_model(path)
        return as_keras_model(path)
    check = check_archive if path.suffix == ".keras" else check_hdf5_model
    named = check(path, frozenset(wanted))
    objects = _imported(wanted, named, path.name)
    try:
        with keras.saving.custom_object_scope(objects):
            return keras.saving.load_model(path, custom_objects=objects, compile=False, safe_mode=True)
    # Keras raises whatever its layers do on a file that it cannot read: every kind means the same here.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        msg = f"Keras {keras.__version__} cannot load {path.name}: {first}"
        raise ConversionError(msg) from error


def _split(custom_object: str) -> tuple[str, str]:
    module, colon, name = custom_object.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        msg = f"--custom-objects {custom_object}: write it as module:NAME, such as my_package.layers:Attention"
        raise SpecError(msg)
    return name, module


def _imported(wanted: dict[str, str], named: Iterable[Custom], model: str) -> dict[str, Any]:
    """What the model names, under each name that it uses."""
    objects = {name: _import(module, name) for name, module in wanted.items()}
    for custom in named:
        found = keras.saving.get_registered_object(custom.registered_name)
        if found not in (None, objects[custom.name]):
            msg = f"{model} was not loaded: {custom.registered_name} is another object than the {custom.name} given"
            raise UntrustedModelError(msg)
        objects[custom.registered_name] = objects[custom.name]
    return objects


def _import(module: str, name: str) -> Any:  # noqa: ANN401 - classes and functions alike
    try:
        return getattr(importlib.import_module(module), name)
    # It is the user's own code, which may fail in any way while it is imported.
    except Exception as error:
        msg = (
            f"--custom-objects {module}:{name} cannot be imported ({type(error).__name__}: {error}):"
            " run radserve where the module is, or install it"
        )
        raise SpecError(msg) from error
