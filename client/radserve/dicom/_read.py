"""Open a DICOM file: size, form and completeness checked before anything is believed."""

from __future__ import annotations

import os
import zlib

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from radserve.dicom._bounds import TRUNCATED, BoundedStream, check_values
from radserve.errors import DecodeError, InputError, MissingAttributeError
from radserve.files import read_file

MAX_FILE_BYTES = 2**30
MAX_INFLATED_BYTES = 2**28
_PREAMBLE_BYTES = 132


def load(source: str | os.PathLike[str] | bytes | Dataset) -> Dataset:
    """Give the data set that a source holds.

    Args:
        source: Path or content of a DICOM file (PS3.10), or a data set.

    Raises:
        DecodeError: It is no DICOM file, is truncated, inflates without end or has elements without end.
        MissingAttributeError: The file does not say its transfer syntax.
        InputError: It cannot be read, or is larger than 1 GiB.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, str | os.PathLike):
        data = read_file(source, MAX_FILE_BYTES)
    else:
        msg = f"expected a path, bytes, a pydicom Dataset or an array, not {type(source).__name__}"
        raise InputError(msg)
    if len(data) > MAX_FILE_BYTES:
        msg = f"the file is larger than {MAX_FILE_BYTES >> 30} GiB, the most this SDK reads"
        raise InputError(msg)
    return _parse(data)


def _parse(data: bytes) -> Dataset:
    if data[128:_PREAMBLE_BYTES] != b"DICM":
        msg = "not a DICOM file: it has no preamble (PS3.10 7.1)"
        raise DecodeError(msg)
    # pydicom's public reader would inflate with no bound, and that of the meta information takes file names only.
    from pydicom.filereader import _read_command_set_elements, _read_file_meta_info  # noqa: PLC0415 - beside the reason

    stream = BoundedStream(data)
    stream.seek(_PREAMBLE_BYTES)
    meta = _read_file_meta_info(stream)
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        keyword = "TransferSyntaxUID"
        raise MissingAttributeError(keyword, "the file does not say how it is encoded (PS3.10 7.1)")
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = BoundedStream(_inflate(memoryview(data)[stream.tell() :]), stream.elements)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
    command_set = _read_command_set_elements(stream)  # of no use, but some files keep what they were sent with
    dataset: Dataset = read_dataset(
        stream,
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
    )
    if not stream.ended_well:
        raise DecodeError(TRUNCATED)
    for elements in (command_set, dataset):
        check_values(elements, stream)
    dataset.file_meta = meta
    return dataset


def _inflate(deflated: memoryview) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # PS3.5 A.5: no zlib header
    try:
        inflated = inflater.decompress(deflated, MAX_INFLATED_BYTES)
    except zlib.error:
        msg = "the deflated data set is damaged: fetch the file again"
        raise DecodeError(msg) from None
    if inflater.unconsumed_tail or len(inflated) >= MAX_INFLATED_BYTES:
        msg = f"the deflated data set inflates to more than {MAX_INFLATED_BYTES >> 20} MiB"
        raise DecodeError(msg)
    if not inflater.eof:
        raise DecodeError(TRUNCATED)
    return inflated
