"""Typed, coded findings from DICOM files and reports, computed by NVIDIA Triton."""
