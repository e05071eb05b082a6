"""Read DICOM files (PS3.10): images and waveforms, in physical units, without trusting the file."""

from radserve.dicom._file import DicomFile, DicomSource, open_dicom, read_image, read_waveform

__all__ = ["DicomFile", "DicomSource", "open_dicom", "read_image", "read_waveform"]
