"""What a segmentation answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radserve.results._result import SHOWN_FINDINGS, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from radserve.contracts import Code
    from radserve.reports import Dataset, DicomSource
    from radserve.results._display import View
    from radserve.sources import Geometry

_SIZE_DIGITS = 6
_WHOLE_FROM = 99.5  # from here on three digits are a whole number


@dataclass(frozen=True, kw_only=True)
class Region:
    """One label of a segmentation.

    Attributes:
        label: The label's name.
        value: Its value in the label map.
        is_positive: Whether any pixel has it.
        pixel_count: How many do, on the source image's grid.
        area_mm2: Of one image, their area, square millimetres, not rounded; None of a
            stack, and where the file states no Pixel Spacing, or an impossible one.
        volume_mm3: Of a stack, their volume, cubic millimetres, not rounded: pixels times
            area and mean distance of all slices. None of one image, where the images form
            no even, upright stack in the patient, and where the model accepts distances
            that differ by more than a tenth.
        code: What the label means, coded.
        category: What kind of thing it is: Segmented Property Category (PS3.16 CID 7150);
            None where the contract does not say it.
    """

    label: str
    value: int
    is_positive: bool
    pixel_count: int
    area_mm2: float | None
    volume_mm3: float | None = None
    code: Code
    category: Code | None = None

    @property
    def extent(self) -> str:
        """How large it is, for people: pixels, and the area or volume to three digits or the whole unit."""
        pixels = f"{self.pixel_count} pixels"
        size, unit = (self.area_mm2, "mm²") if self.volume_mm3 is None else (self.volume_mm3, "mm³")
        return pixels if size is None else f"{pixels} ({_told(size)} {unit})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them.

        ``area_mm2`` and ``volume_mm3`` are rounded to six significant digits, not
        decimals: the error is below a millionth of the size however small the pixels
        are, far below that of any outline, and ``pixel_count`` is exact.
        """
        return {
            "label": self.label,
            "value": self.value,
            "is_positive": self.is_positive,
            "pixel_count": self.pixel_count,
            "area_mm2": _rounded(self.area_mm2),
            "volume_mm3": _rounded(self.volume_mm3),
            "code": _plain(self.code),
            "category": None if self.category is None else _plain(self.category),
        }


def _rounded(size: float | None) -> float | None:
    return None if size is None else float(f"{size:.{_SIZE_DIGITS}g}")


def _plain(code: Code) -> dict[str, str]:
    return {"value": code.value, "scheme": code.scheme, "meaning": code.meaning}


def _told(size: float) -> str:
    return f"{size:.0f}" if size >= _WHOLE_FROM else f"{size:.3g}"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Segmentation(Result):
    """A segmentation's answer.

    Attributes:
        label_map: ``(rows, columns)``, of a study ``(images, rows, columns)``, uint8 on the
            source's own grid: 0 is the background and what the model did not see,
            others are a region's value; read-only.
        findings: One region for each label of the model, in the contract's order.
        geometry: Where that grid lies in the patient; None where the file does not say it.
    """

    label_map: NDArray[np.uint8]
    findings: tuple[Region, ...]
    geometry: Geometry | None = None

    def __repr__(self) -> str:
        shown = ", ".join(f"{region.label} {region.extent}" for region in self.findings[:SHOWN_FINDINGS])
        return f"<Segmentation by {self.model} {self.version}: {shown}>"

    def to_dicom_seg(self, source: DicomSource | Sequence[DicomSource]) -> Dataset:
        """The label map as a DICOM Segmentation; see ``radserve.reports.to_dicom_seg``."""
        from radserve import reports  # noqa: PLC0415 - needs pydicom and an extra

        return reports.to_dicom_seg(self, source)

    def to_secondary_capture(self, source: DicomSource) -> Dataset:
        """The picture with the label map over it; see ``radserve.reports.to_secondary_capture``."""
        from radserve import reports  # noqa: PLC0415 - needs pydicom

        return reports.to_secondary_capture(self, source)

    def _view(self) -> View:
        from radserve.results._display import View  # noqa: PLC0415 - brings NumPy
        from radserve.results._pictures import label_colours  # noqa: PLC0415 - see above

        shown, caption, measure = self.label_map, "label map", "area, mm²"
        if shown.ndim > 2:  # noqa: PLR2004 - rows and columns
            index = int((shown > 0).sum(axis=(1, 2)).argmax())
            shown, caption = shown[index], f"label map, image {index + 1} of {len(shown)}"
            measure = "volume, mm³"
        return View(
            title=f"{self.model} {self.version}",
            columns=("label", "pixels", measure, "code"),
            rows=[
                (
                    region.label,
                    str(region.pixel_count),
                    "" if size is None else _told(size),
                    f"{region.code.meaning} ({region.code.scheme} {region.code.value})",
                )
                for region in self.findings
                for size in [region.area_mm2 if region.volume_mm3 is None else region.volume_mm3]
            ],
            note=self.provenance.intended_use,
            pictures=[(caption, label_colours(shown))],
        )

    def _content(self) -> dict[str, Any]:
        rows, columns = self.label_map.shape[-2:]
        return {"rows": rows, "columns": columns, "findings": [region.to_dict() for region in self.findings]}
