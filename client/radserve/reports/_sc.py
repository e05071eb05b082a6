"""The picture a result was made of, with what was found over it, as a Secondary Capture (PS3.3 A.8.1)."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from radserve.dicom import read_image
from radserve.errors import InputError
from radserve.preprocess import apply_window
from radserve.reports._context import NOT_REVIEWED, Context, Reference, coded, new_uid
from radserve.results import Classification, Finding, Segmentation
from radserve.results._pictures import evidence_colours, label_colours
from radserve.sources import VoiWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.dicom import DicomSource
    from radserve.results import EvidenceMap, Region
    from radserve.sources import Image

_SERIES_NUMBER = 9003
_LEAST_COLUMNS = 512  # what the text needs
_MASK_OPACITY = 0.4
_EVIDENCE_OPACITY = 0.6
_8_BIT_MAX = 255
_SHOWN_FINDINGS = 5
_LARGEST_ASPECT, _ASPECT_DENOMINATOR = 100, 1000
_COMPRESSION = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_IMAGE_ATTRIBUTES = ("BurnedInAnnotation", *_COMPRESSION)


def secondary_capture(result: Classification | Segmentation, source: DicomSource) -> Dataset:
    """See ``radserve.reports.to_secondary_capture``."""
    context = Context.of(result, source, every=False)
    if len(context.sources) != 1:
        msg = "a secondary capture is of one picture: give one of the files that the result was made of"
        raise InputError(msg)
    number, overlay, opacity = _overlay(result, context)
    (dataset,) = context.sources
    image = read_image(dataset, frame=None if number is None else number - 1)
    picture = _display(image)
    if overlay is not None:
        if overlay.shape != picture.shape:
            msg = "the map is not of the source's size: give the file as it was predicted"
            raise InputError(msg)
        picture = picture * (1 - opacity) + overlay * opacity
    pixels = _captioned(
        np.rint(picture).clip(0, _8_BIT_MAX).astype(np.uint8), _lines(result, has_map=overlay is not None)
    )
    reference = context.references[0]._replace(frame_numbers=() if number is None else (number,))
    capture = _instance(result, dataset, reference, pixels)
    if ratio := _aspect_ratio(image):
        capture.PixelAspectRatio = ratio
    return context.finish(capture, result)


def _aspect_ratio(image: Image) -> list[int] | None:
    """Height and width of a pixel (PS3.3 C.7.6.3.1.7); None of square ones, or where the file says nothing sane."""
    aspect = image.pixel_aspect
    if aspect is None or not 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT:
        return None
    ratio = Fraction(aspect).limit_denominator(_ASPECT_DENOMINATOR)
    return None if ratio == 1 else [ratio.numerator, ratio.denominator]


def _overlay(
    result: Classification | Segmentation, context: Context
) -> tuple[int | None, NDArray[np.uint8] | None, NDArray[np.float32] | float]:
    """Which frame is shown, in what colours, and how opaque they are."""
    frames = context.references[0].frame_numbers
    if isinstance(result, Classification):
        number = frames[0] if len(frames) == 1 else _most_probable(result, context)
        evidence = _map_of(result, context)
        if evidence is None:
            return number, None, 0.0
        if evidence.image is not None:
            number = result.images[evidence.image].frame_number
        values = evidence.values
        return number, evidence_colours(values), _EVIDENCE_OPACITY * values[:, :, np.newaxis]
    label_map, number = result.label_map, frames[0] if frames else None
    if label_map.ndim == 3:  # noqa: PLR2004 - a stack
        uids = list(dict.fromkeys(result.provenance.sop_instance_uids))
        index = uids.index(str(context.references[0].sop_instance_uid))
        if len(label_map) != len(frames or uids):
            msg = (
                "the study holds several files, one of them of several frames: the result does not say which images"
                " of the label map are this file's; predict one multi-frame file at a time"
            )
            raise InputError(msg)
        if frames:  # of one file: the frame that shows most
            index = int(np.count_nonzero(label_map, axis=(1, 2)).argmax())
            number = frames[index]
        label_map = label_map[index]
    shown = (label_map > 0)[:, :, np.newaxis]
    return number, label_colours(label_map), _MASK_OPACITY * shown.astype(np.float32)


def _map_of(result: Classification, context: Context) -> EvidenceMap | None:
    """The evidence map, unless it is one of another file of the study."""
    evidence = result.evidence
    if evidence is None or evidence.image is None:
        return evidence
    uid = result.images[evidence.image].sop_instance_uid
    return evidence if uid == str(context.references[0].sop_instance_uid) else None


def _most_probable(result: Classification, context: Context) -> int | None:
    """Of a file of several frames, the one that speaks most for the answer."""
    uid = str(context.references[0].sop_instance_uid)
    of_file = [image for image in result.images if image.sop_instance_uid == uid]
    if not of_file:
        return None

    def probability(findings: tuple[Finding, ...]) -> float:
        return next(finding.probability for finding in findings if finding.label == result.top.label)

    return max(of_file, key=lambda image: probability(image.findings)).frame_number


def _display(image: Image) -> NDArray[np.float32]:
    """``(rows, columns, 3)`` from 0 to 255: by the file's first window, else from the least to the largest value."""
    if image.photometric_interpretation == "RGB":
        return image.values.astype(np.float32)
    values = image.values.astype(np.float32, copy=False)
    counted = values if image.valid is None else values[image.valid]
    low, high = (float(counted.min()), float(counted.max())) if counted.size else (0.0, 0.0)
    whole = VoiWindow(center=(low + high) / 2, width=max(high - low, 1.0), function="LINEAR_EXACT")
    shown = apply_window(values, image.windows[0] if image.windows else whole)
    if image.photometric_interpretation == "MONOCHROME1":
        shown = np.float32(1) - shown
    if image.valid is not None:
        shown = np.where(image.valid, shown, np.float32(0))
    return np.repeat(shown[:, :, np.newaxis] * np.float32(_8_BIT_MAX), 3, axis=2)


def _lines(result: Classification | Segmentation, *, has_map: bool) -> list[str]:
    lines = [NOT_REVIEWED, f"{result.model} version {result.version}"]
    if isinstance(result, Classification):
        lines += [
            f"{_name(finding)}: {finding.probability:.3f}, {finding.decision}"
            for finding in result.findings[:_SHOWN_FINDINGS]
        ]
        if result.evidence is not None and has_map:
            explained = next(each for each in result.findings if each.label == result.evidence.label)
            lines.append(f"map: evidence for {_name(explained)}")
    else:
        lines += [f"{_name(region)}: {region.extent}" for region in result.findings[:_SHOWN_FINDINGS]]
    return lines


def _name(found: Finding | Region) -> str:
    """Its label, or what its code means or is, in letters that the font has: ASCII."""
    code = f"{found.code.scheme} {found.code.value}"
    return next((name for name in (found.label, found.code.meaning) if name.isascii()), code)


def _captioned(pixels: NDArray[np.uint8], lines: list[str]) -> NDArray[np.uint8]:
    """The picture, enlarged if it is too small for text, below a band of text that hides none of it."""
    factor = -(-_LEAST_COLUMNS // pixels.shape[1])
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    columns = pixels.shape[1]
    size = max(16, columns // 48)
    font = ImageFont.load_default(size)
    band = Picture.new("RGB", (columns, size * (len(lines) + 1) * 5 // 4))
    draw = ImageDraw.Draw(band)
    for index, line in enumerate(lines):
        plain = line.replace("mm²", "mm2").replace("mm³", "mm3")
        shown = plain.encode("ascii", "replace").decode()  # the font has no other letters
        place = size // 2, size // 2 + index * size * 5 // 4
        draw.text(place, shown, fill=(255, 255, 0) if index == 0 else (255, 255, 255), font=font)
    return np.concatenate([np.asarray(band), pixels])


def _instance(
    result: Classification | Segmentation, dataset: Dataset, reference: Reference, pixels: NDArray[np.uint8]
) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = new_uid()
    made.SeriesInstanceUID = new_uid()
    made.Modality = dataset.get("Modality") or "OT"
    made.SeriesNumber, made.InstanceNumber = _SERIES_NUMBER, 1
    made.ConversionType = "WSD"  # PS3.3 C.8.6.1: made by a workstation
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.PatientOrientation = dataset.get("PatientOrientation") or ""
    made.Laterality = dataset.get("Laterality") or ""
    for keyword in _IMAGE_ATTRIBUTES:
        if keyword in dataset:
            made[keyword] = dataset[keyword]
    made.DerivationDescription = f"{NOT_REVIEWED}: drawn over the source by {result.model} {result.version}"
    made.SourceImageSequence = [_source_item(reference)]
    made.SamplesPerPixel, made.PlanarConfiguration = 3, 0
    made.PhotometricInterpretation = "RGB"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.Rows, made.Columns = pixels.shape[:2]
    content = pixels.tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    made["PixelData"].VR = "OB"
    return made


def _source_item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference[:2]
    if reference.frame_numbers:
        item.ReferencedFrameNumber = list(reference.frame_numbers)
    item.PurposeOfReferenceCodeSequence = [coded("121322", "DCM", "Source image for image processing operation")]
    return item
