"""A DICOM file whose scope is read at once and whose pixels are decoded on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radserve.dicom._budget import Budget
from radserve.dicom._guard import guarded
from radserve.dicom._headers import read_headers
from radserve.dicom._image import decode_image
from radserve.dicom._read import load
from radserve.dicom._scope import read_scope
from radserve.dicom._waveform import decode_waveform

if TYPE_CHECKING:
    import os
    from typing import SupportsIndex, TypeAlias

    from pydicom.dataset import Dataset

    from radserve.dicom._headers import Header
    from radserve.sources import Image, Scope, Waveform

DicomSource: TypeAlias = "str | os.PathLike[str] | bytes | Dataset"


class DicomFile:
    """An opened file. Made by ``open_dicom``.

    Attributes:
        scope: What a contract may ask about, to be checked before decoding.
        budget: How long decoders may take; the files of a series share one.
    """

    def __init__(self, dataset: Dataset, scope: Scope) -> None:
        self._dataset = dataset
        self.scope = scope
        self.budget = Budget()

    @guarded
    def image(self, *, frame: SupportsIndex | None = None) -> Image:
        """Decode one frame; see ``read_image``."""
        return decode_image(self._dataset, self.scope, frame, self.budget)

    @guarded
    def headers(self) -> tuple[Header, ...]:
        """What tells its images apart, one for each frame; see ``read_headers``."""
        return read_headers(self._dataset)

    @guarded
    def waveform(self) -> Waveform:
        """Decode the recording; see ``read_waveform``."""
        return decode_waveform(self._dataset, self.scope)


@guarded
def open_dicom(source: DicomSource) -> DicomFile:
    """Open a DICOM file (PS3.10) and read its scope, not its pixels.

    Args:
        source: Path or content of the file, or a data set.

    Raises:
        DecodeError: It is no DICOM file, is truncated or inflates without end.
        InputError: It cannot be read, or is larger than 1 GiB.
    """
    dataset = load(source)
    return DicomFile(dataset, read_scope(dataset))


def read_image(source: DicomSource, *, frame: SupportsIndex | None = None) -> Image:
    """Read one frame of an image, as modality values (PS3.3 C.11.1).

    Args:
        source: Path or content of a DICOM file, or a data set.
        frame: Which frame, counted from 0; needed where the file holds several.

    Raises:
        DecodeError: It is no DICOM file, is truncated or contradicts itself.
        UnsupportedTransferSyntaxError: No decoder for its transfer syntax is installed.
        MissingAttributeError: An attribute of the Image Pixel module is absent.
        OutOfScopeError: It is no image, or holds several frames and none was chosen.
    """
    return open_dicom(source).image(frame=frame)


def read_waveform(source: DicomSource) -> Waveform:
    """Read a recording, in microvolts (PS3.3 C.10.9).

    Channels that do not measure a voltage, or whose Channel Status is not OK,
    are left out. Samples that equal Waveform Padding Value are NaN.

    Args:
        source: Path or content of a DICOM file, or a data set.

    Raises:
        DecodeError: It is no DICOM file, is truncated or contradicts itself.
        MissingAttributeError: An attribute of the Waveform module is absent.
        OutOfScopeError: It is no waveform.
    """
    return open_dicom(source).waveform()
