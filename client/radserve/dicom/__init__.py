"""Read DICOM files (PS3.10): images and waveforms, in physical units, without trusting the file."""

from radserve.dicom._file import DicomFile, DicomSource, open_dicom, read_image, read_waveform
from radserve.dicom._series import DicomSeries, open_series

__all__ = [
    "DicomFile",
    "DicomSeries",
    "DicomSource",
    "open_dicom",
    "open_series",
    "read_image",
    "read_waveform",
]
