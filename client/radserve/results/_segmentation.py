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

_AREA_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Region:
    """One label of a segmentation.

    Attributes:
        label: The label's name.
        value: Its value in the label map.
        is_positive: Whether any pixel has it.
        pixel_count: How many do, on the source image's grid.
        area_mm2: Their area, square millimetres, not rounded; None where the file states
            no Pixel Spacing.
        code: What the label means, coded.
        category: What kind of thing it is: Segmented Property Category (PS3.16 CID 7150);
            None where the contract does not say it.
    """

    label: str
    value: int
    is_positive: bool
    pixel_count: int
    area_mm2: float | None
    code: Code
    category: Code | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them.

        ``area_mm2`` is rounded to six significant digits, not decimals: the error is
        below a millionth of the area however small the pixels are, far below that of
        any outline, and ``pixel_count`` is exact.
        """
        return {
            "label": self.label,
            "value": self.value,
            "is_positive": self.is_positive,
            "pixel_count": self.pixel_count,
            "area_mm2": None if self.area_mm2 is None else float(f"{self.area_mm2:.{_AREA_DIGITS}g}"),
            "code": {"value": self.code.value, "scheme": self.code.scheme, "meaning": self.code.meaning},
        }


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
        shown = ", ".join(f"{region.label} {region.pixel_count} pixels" for region in self.findings[:SHOWN_FINDINGS])
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

        shown, caption = self.label_map, "label map"
        if shown.ndim > 2:  # noqa: PLR2004 - rows and columns
            index = int((shown > 0).sum(axis=(1, 2)).argmax())
            shown, caption = shown[index], f"label map, image {index + 1} of {len(shown)}"
        return View(
            title=f"{self.model} {self.version}",
            columns=("label", "pixels", "area, mm²", "code"),
            rows=[
                (
                    region.label,
                    str(region.pixel_count),
                    "" if region.area_mm2 is None else f"{region.area_mm2:.4g}",
                    f"{region.code.meaning} ({region.code.scheme} {region.code.value})",
                )
                for region in self.findings
            ],
            note=self.provenance.intended_use,
            pictures=[(caption, label_colours(shown))],
        )

    def _content(self) -> dict[str, Any]:
        rows, columns = self.label_map.shape[-2:]
        return {"rows": rows, "columns": columns, "findings": [region.to_dict() for region in self.findings]}
