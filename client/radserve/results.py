"""What a model answers: frozen, typed, coded, and traceable to the model that said it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from radserve.contracts import Code
    from radserve.errors import RadserveError

_SHOWN_FINDINGS = 3
_AREA_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One label and how probable the model holds it.

    Attributes:
        label: The label's name.
        probability: From 0 to 1, calibrated as the contract says.
        threshold: From here on the served model calls it positive.
        is_positive: The served model's decision.
        is_indeterminate: The probability lies in the contract's indeterminate band.
        code: What the label means, coded.
    """

    label: str
    probability: float
    threshold: float
    is_positive: bool
    is_indeterminate: bool
    code: Code

    def __repr__(self) -> str:
        decision = "positive" if self.is_positive else "indeterminate" if self.is_indeterminate else "negative"
        return f"<Finding {self.label}: {self.probability:.3f}, {decision}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them."""
        return {
            "label": self.label,
            "probability": self.probability,
            "threshold": self.threshold,
            "is_positive": self.is_positive,
            "is_indeterminate": self.is_indeterminate,
            "code": {"value": self.code.value, "scheme": self.code.scheme, "meaning": self.code.meaning},
        }


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an answer comes from.

    Attributes:
        intended_use: What the model may be used for; show it with the answer.
        model_sha256: Hash of the trained model file.
        contract_sha256: Hash of the contract that prepared the input.
        sdk_version: Version of radserve that prepared the input.
        sop_instance_uids: SOP Instance UIDs of the input; empty where it was no DICOM file.
        request_id: The id in the server's log.
        created: When the answer came, UTC.
    """

    intended_use: str
    model_sha256: str
    contract_sha256: str
    sdk_version: str
    sop_instance_uids: tuple[str, ...]
    request_id: str
    created: datetime

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them."""
        return {
            "intended_use": self.intended_use,
            "model_sha256": self.model_sha256,
            "contract_sha256": self.contract_sha256,
            "sdk_version": self.sdk_version,
            "sop_instance_uids": list(self.sop_instance_uids),
            "request_id": self.request_id,
            "created": self.created.isoformat(timespec="milliseconds"),
        }


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """What every answer has.

    Attributes:
        model: The public model's name.
        version: The model version that answered.
        provenance: Where the answer comes from.
    """

    model: str
    version: int
    provenance: Provenance = field(repr=False)

    @abstractmethod
    def _content(self) -> dict[str, Any]:
        """What is the task's own, as plain values."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them; arrays are left out."""
        return {"model": self.model, "version": self.version, **self._content(), **self.provenance.to_dict()}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvidenceMap:
    """Where the model saw what speaks for its most probable label: Grad-CAM (Selvaraju et al., ICCV 2017).

    Attributes:
        label: The label it speaks for.
        values: ``(rows, columns)`` float32 from 0 to 1, on the source image's grid; read-only.
    """

    label: str
    values: NDArray[np.float32]

    @property
    def maximum(self) -> tuple[int, int] | None:
        """Row and column of the largest value, counted from 0; None where nothing speaks for the label."""
        row, column = divmod(int(self.values.argmax()), self.values.shape[1])
        return (row, column) if self.values[row, column] > 0 else None

    def __repr__(self) -> str:
        rows, columns = self.values.shape
        return f"<EvidenceMap of {self.label}: {rows} x {columns}, {self.values.min():.3f} to {self.values.max():.3f}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them; the map itself is left out."""
        place = None if self.maximum is None else dict(zip(("row", "column"), self.maximum, strict=True))
        rows, columns = self.values.shape
        return {"label": self.label, "rows": rows, "columns": columns, "maximum": place}


@dataclass(frozen=True, kw_only=True, repr=False)
class Classification(Result):
    """A classifier's answer.

    Attributes:
        findings: Every label of the model, most probable first.
        evidence: The evidence map; None where the model gives none.
    """

    findings: tuple[Finding, ...]
    evidence: EvidenceMap | None = None

    @property
    def top(self) -> Finding:
        """The most probable finding."""
        return self.findings[0]

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{finding.label} {finding.probability:.3f}{' (positive)' if finding.is_positive else ''}"
            for finding in self.findings[:_SHOWN_FINDINGS]
        )
        more = len(self.findings) - _SHOWN_FINDINGS
        return f"<Classification by {self.model} {self.version}: {shown}{f', {more} more' if more > 0 else ''}>"

    def _content(self) -> dict[str, Any]:
        shown = {} if self.evidence is None else {"evidence": self.evidence.to_dict()}
        return {"findings": [finding.to_dict() for finding in self.findings], **shown}


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
    """

    label: str
    value: int
    is_positive: bool
    pixel_count: int
    area_mm2: float | None
    code: Code

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
        label_map: ``(rows, columns)`` uint8 on the source image's own grid: 0 is the
            background and what the model did not see, others are a region's value; read-only.
        findings: One region for each label of the model, in the contract's order.
    """

    label_map: NDArray[np.uint8]
    findings: tuple[Region, ...]

    def __repr__(self) -> str:
        shown = ", ".join(f"{region.label} {region.pixel_count} pixels" for region in self.findings[:_SHOWN_FINDINGS])
        return f"<Segmentation by {self.model} {self.version}: {shown}>"

    def _content(self) -> dict[str, Any]:
        rows, columns = self.label_map.shape
        return {"rows": rows, "columns": columns, "findings": [region.to_dict() for region in self.findings]}


@dataclass(frozen=True, kw_only=True, repr=False)
class GeneratedText(Result):
    """A text generator's answer.

    Attributes:
        text: What it wrote.
        is_complete: False where it was cut off at its longest length: show it with a warning.
        log_probability: Sum of the logarithms of its tokens' probabilities.
    """

    text: str
    is_complete: bool
    log_probability: float

    def __repr__(self) -> str:
        cut = "" if self.is_complete else ", cut off"
        return f"<GeneratedText by {self.model} {self.version}: {len(self.text)} characters{cut}>"

    def _content(self) -> dict[str, Any]:
        return {"text": self.text, "is_complete": self.is_complete, "log_probability": self.log_probability}


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """One input of ``predict_many`` that got no answer.

    Attributes:
        index: Its place in the inputs, counted from 0.
        error: Why.
    """

    index: int
    error: RadserveError
