"""Looks into HDF5 files: what Keras keeps weights in, and whole models before ``.keras``."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import h5py

from radserve.errors import ConversionError, UntrustedModelError
from radserve_export.from_keras.configuration import Custom, check_configuration, refusal
from radserve_export.model_file import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

_CONFIGURATIONS = ("model_config", "training_config")
# What h5py raises on damaged files.
_DAMAGE = (OSError, RuntimeError, AttributeError, KeyError, TypeError, ValueError, OverflowError)


def check_weights(content: bytes, model: str) -> None:
    """Refuse weights that are anything but arrays of this file.

    Args:
        content: The HDF5 file.
        model: What to call the model in messages.

    Raises:
        ConversionError: It is damaged.
        UntrustedModelError: A link, another file's data, objects, or too much.
    """
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            _check_items(file, model)
    except UntrustedModelError:
        raise
    except _DAMAGE as error:
        raise _damaged(model) from error


def check_hdf5_model(path: Path, custom: AbstractSet[str] = frozenset()) -> set[Custom]:
    """Look at a model in HDF5 as at an archive: what it is built of, and its weights.

    That is not the whole of what Keras reads in such a file, and its safe mode
    leaves such files out: whoever calls this trusts the file.

    Args:
        path: The file.
        custom: Names of the custom objects that the user gave.

    Returns:
        The custom objects that it names.

    Raises:
        ConversionError: It is no Keras model, or damaged.
        UntrustedModelError: What is refused, and why.
    """
    try:
        with h5py.File(path, "r") as file:
            _check_items(file, path.name)
            texts = [file.attrs[name] for name in _CONFIGURATIONS if name in file.attrs]
        found = [check_configuration(json.loads(text), path.name, custom, legacy=True) for text in texts]
    except UntrustedModelError:
        raise
    except RecursionError as error:
        msg = f"{path.name}: its configuration is not one that Keras writes"
        raise UntrustedModelError(msg) from error
    except _DAMAGE as error:
        raise _damaged(path.name) from error
    return set().union(*found)


def _check_items(file: h5py.File, model: str) -> None:
    total = 0
    seen = set()
    pending = [file["/"]]
    while pending:
        group = pending.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:
            continue
        seen.add(place)
        for key in group:
            where = f"weights {group.name.rstrip('/')}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise refusal(model, where, "it is a link")
            item = group[key]
            if isinstance(item, h5py.Group):
                pending.append(item)
                continue
            if item.external or item.is_virtual:
                raise refusal(model, where, "it reads another file")
            if item.dtype.hasobject and h5py.check_string_dtype(item.dtype) is None:
                raise refusal(model, where, "it holds objects, not numbers")
            total += item.size * item.dtype.itemsize
            if total > MAX_BYTES:
                raise refusal(model, where, "it is too large")


def _damaged(model: str) -> ConversionError:
    return ConversionError(f"{model}: its weights are damaged: save the model again with model.save('NAME.keras')")
