"""Segment a CT slice and write the answer back: a DICOM SEG and an SR that refers to it.

Usage: python write_back.py HOST:PORT SLICE.dcm FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from radserve import Client, Segmentation


def main(url: str, source: str, folder: str) -> None:
    """Write FOLDER/segmentation.dcm and FOLDER/report.dcm."""
    with Client(url) as client:
        result = client.model("ct_lesion", Segmentation).predict(source)
    segmentation = result.to_dicom_seg(source)
    report = result.to_dicom_sr(source, segmentation=segmentation)
    for name, dataset in (("segmentation", segmentation), ("report", report)):
        path = Path(folder) / f"{name}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
