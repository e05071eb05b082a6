"""PNG and JPEG for those who have no DICOM; NIfTI is told apart, to be refused by its name."""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from PIL import ImageOps

from radserve.errors import DecodeError, InputError
from radserve.files import read_file
from radserve.sources import Image, VoiWindow

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    PictureSource: TypeAlias = "str | os.PathLike[str] | bytes"

MAX_PICTURE_PIXELS = 2**26
MAX_PICTURE_BYTES = 2**28
_PNG, _JPEG, _GZIP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x1f\x8b"
_FORMATS = ("PNG", "JPEG")
_NIFTI_MAGIC = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
_NIFTI_BYTES = 352  # a header and its extension flag: the largest place of the magic is in them
_8_BIT_MAX, _16_BIT_MAX = 255, 65535
_NIFTI = "NIfTI is out of scope: it lacks what decides whether a model may see an image; give the DICOM files"


def is_picture(source: object) -> bool:
    """Whether a source that is no DICOM file is a PNG or JPEG picture, by its first bytes and not its name.

    Raises:
        InputError: It is a NIfTI file.
    """
    begin = _beginning(source)
    if begin.startswith(_GZIP):
        try:
            begin = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(begin, _NIFTI_BYTES)
        except zlib.error:
            return False
    if begin[344:348] in _NIFTI_MAGIC or begin[4:8] in _NIFTI_MAGIC:
        raise InputError(_NIFTI)
    return begin.startswith((_PNG, _JPEG))


def read_picture(source: PictureSource) -> Image:
    """Read a PNG or JPEG as display values: nothing in it has a scale, a place or a patient.

    EXIF's orientation is applied. Grey values are those of the file, with one window
    that spans their whole range.

    Args:
        source: Path or content of the file.

    Raises:
        InputError: The file cannot be read, is larger than 256 MiB, animated, partly
            transparent, black and white or CMYK, or has more than 64 million pixels.
        DecodeError: It is neither PNG nor JPEG, or damaged.
    """
    opened = _open(_content(source))
    if getattr(opened, "n_frames", 1) > 1:
        msg = "the picture is animated, or several in one file: give one picture"
        raise InputError(msg)
    if opened.width * opened.height > MAX_PICTURE_PIXELS:
        msg = f"the picture has more than {MAX_PICTURE_PIXELS >> 20} million pixels, the most this SDK decodes"
        raise InputError(msg)
    try:
        opened.load()
        upright = ImageOps.exif_transpose(opened)
    except Exception:  # noqa: BLE001 - whatever the decoders raise, the file cannot be used
        msg = "the picture is truncated or damaged: fetch it again"
        raise DecodeError(msg) from None
    return _image(upright)


def without_colour(image: Image) -> Image:
    """A picture in RGB whose three channels are equal, as the grey one that it shows; any other as it is."""
    values = image.values
    if image.photometric_interpretation != "RGB" or not (values == values[..., :1]).all():
        return image
    return _grey(values[..., 0], _8_BIT_MAX)


def _grey(values: NDArray[Any], highest: int) -> Image:
    full = VoiWindow(center=highest / 2, width=highest, function="LINEAR_EXACT")
    return Image(pixels=values.astype(np.float32), photometric_interpretation="MONOCHROME2", windows=(full,))


def _image(picture: PIL.Image.Image) -> Image:
    if picture.mode in ("P", "PA", "LA", "RGBA") or "transparency" in picture.info:
        is_grey = picture.mode in ("L", "LA")
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] != _8_BIT_MAX:
            msg = "the picture is partly transparent: give it on its background"
            raise InputError(msg)
        picture = picture.convert("L" if is_grey else "RGB")
    if picture.mode == "RGB":
        return Image(pixels=np.asarray(picture, dtype=np.uint8), photometric_interpretation="RGB")
    if picture.mode not in ("L", "I", "I;16", "I;16B"):
        msg = "the picture is neither grey nor RGB: convert it to one of them"
        raise InputError(msg)
    return _grey(np.asarray(picture), _8_BIT_MAX if picture.mode == "L" else _16_BIT_MAX)


def _open(content: bytes) -> PIL.Image.Image:
    try:
        return PIL.Image.open(BytesIO(content), formats=_FORMATS)
    except Exception:  # noqa: BLE001 - as above; Pillow refuses claims of very many pixels here
        msg = "not a PNG or JPEG picture that can be decoded"
        raise DecodeError(msg) from None


def _beginning(source: object) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(memoryview(source)[: 2 * _NIFTI_BYTES])
    if isinstance(source, str | os.PathLike) and Path(source).is_file():  # a folder may be a study that is damaged
        return read_file(source, 2 * _NIFTI_BYTES)
    return b""


def _content(source: PictureSource) -> bytes:
    content = (
        bytes(source) if isinstance(source, bytes | bytearray | memoryview) else read_file(source, MAX_PICTURE_BYTES)
    )
    if len(content) > MAX_PICTURE_BYTES:
        msg = f"the picture's file is larger than {MAX_PICTURE_BYTES >> 20} MiB, the most this SDK reads"
        raise InputError(msg)
    return content
