"""Loads a trained model; a ``.keras`` archive is looked at before anything in it is used."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.errors import ConversionError, SpecError, UntrustedModelError
from radserve_export.from_keras._tensorflow import keras
from radserve_export.from_keras.archive import check_archive

if TYPE_CHECKING:
    from collections.abc import Callable

Loaded = tuple["keras.Model", str]
_READABLE = (".keras", ".h5")


def load_model(path: Path, *, trust: bool = False) -> Loaded:
    """Load a trained Keras model.

    The bytes that were looked at are the bytes that are loaded.

    Args:
        path: A ``.keras`` archive, or an HDF5 file.
        trust: Load formats that cannot be looked at first (``.h5``). Archives
            are looked at all the same.

    Returns:
        The model, and the SHA-256 of its file.

    Raises:
        SpecError: There is no such file.
        UntrustedModelError: The file could run code, or is of a format that could.
        ConversionError: It is not a Keras model, or of another Keras.
    """
    if path.suffix not in _READABLE or path.is_dir():
        msg = f"{path.name} is not a Keras model file: save the model with model.save('NAME.keras')"
        raise ConversionError(msg)
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"cannot read the model {path}: {error.strerror}"
        raise SpecError(msg) from error
    if path.suffix == ".keras":
        check_archive(content, path.name)
    elif not trust:
        msg = (
            f"{path.name}: an HDF5 model can run code while it is loaded, and cannot be looked at first:"
            " save it again as .keras, or say --trust if you made it yourself"
        )
        raise UntrustedModelError(msg)
    with tempfile.TemporaryDirectory(prefix="radserve-model-") as folder:
        copy = Path(folder) / f"model{path.suffix}"
        copy.write_bytes(content)
        model = _loaded(lambda: keras.saving.load_model(copy, compile=False, safe_mode=True), path.name)
    return model, hashlib.sha256(content).hexdigest()


def _loaded(load: Callable[[], keras.Model], name: str) -> keras.Model:
    try:
        return load()
    # Keras raises whatever its layers do on a file that it cannot read: every kind means the same here.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        msg = f"Keras {keras.__version__} cannot load {name}: {first}"
        raise ConversionError(msg) from error
