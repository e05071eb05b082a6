"""Write a series made of copies of one image, 5 mm apart, to try a model of studies without a patient's series.

Usage: python series.py IMAGE.dcm FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

COUNT = 8
APART_MM = 5


def main() -> None:
    """Take the image and the folder from the command line."""
    source, folder = map(Path, sys.argv[1:])
    image = pydicom.dcmread(source)
    x, y, z = image.ImagePositionPatient
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.InstanceNumber = number + 1
        image.ImagePositionPatient = [x, y, z + number * APART_MM]
        image.save_as(folder / f"{number + 1:03d}.dcm")
    print(f"wrote {COUNT} images to {folder}")


if __name__ == "__main__":
    main()
