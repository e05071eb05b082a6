"""Label maps as pictures: named after their inputs, and never over what is there already."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.errors import InputError
from radserve.files import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

STANDARD_INPUT = "-"


def picture_paths(inputs: Sequence[str], folder: Path, *, force: bool) -> list[Path]:
    """Where the label map of each input goes: ``NAME.png``, and ``NAME_2.png`` for the next of that name.

    Args:
        inputs: What the user named, all of it, so that a name depends on no answer.
        folder: Made if it is not there.
        force: Whether pictures that are there may be overwritten.

    Raises:
        InputError: One is there already, or the folder cannot be made.
    """
    taken: set[str] = set()
    paths = []
    for given in inputs:
        stem = _stem(given)
        name, number = f"{stem}.png", 2
        while name.casefold() in taken:  # some file systems do not tell upper from lower case
            name, number = f"{stem}_{number}.png", number + 1
        taken.add(name.casefold())
        paths.append(folder / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    there = [path for path in paths if path.exists()]
    if there and not force:
        raise _occupied(there[0])
    return paths


def _stem(given: str) -> str:
    """A file's name without its extension; the last number of a UID is none."""
    if given == STANDARD_INPUT:
        return "stdin"
    path = Path(given)
    return path.name if path.suffix[1:].isdecimal() else path.stem


def write_picture(label_map: NDArray[np.uint8], path: Path, *, force: bool) -> None:
    """Write a label map; its pixels are the labels' values, and nothing else is in the file.

    Raises:
        InputError: The file is there already, cannot be written, or the map is that
            of many images.
    """
    if label_map.ndim > 2:  # noqa: PLR2004 - rows and columns
        msg = "the label map is that of many images, and a PNG file holds one: take it from predict() in Python"
        raise InputError(msg)
    from PIL import Image  # noqa: PLC0415 - slow, and seldom needed

    content = io.BytesIO()
    Image.fromarray(label_map).save(content, format="PNG")
    try:
        if not force:
            path.touch(exist_ok=False)
    except FileExistsError as error:
        raise _occupied(path) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        write_file(path, content.getbuffer())
    except BaseException:  # also when interrupted: an empty file would pass for a picture
        if not force:
            path.unlink()
        raise


def _occupied(path: Path) -> InputError:
    return InputError(f"{path} is there already: name another folder, or overwrite what is there with --force")


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write to {path}: {error.strerror}")
