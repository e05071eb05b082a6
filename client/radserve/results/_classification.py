"""What a classifier answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radserve.results._result import SHOWN_FINDINGS, Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from radserve.contracts import Code
    from radserve.reports import Dataset, DicomSource
    from radserve.results._display import View


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One label and how probable the model holds it.

    Attributes:
        label: The label's name.
        probability: From 0 to 1, calibrated as the contract says.
        threshold: From here on the served model calls it positive.
        is_positive: The served model's decision.
        is_indeterminate: The probability lies in the contract's indeterminate band.
        indeterminate: That band: probabilities from the first to below the second value; None where there is none.
        code: What the label means, coded.
    """

    label: str
    probability: float
    threshold: float
    is_positive: bool
    is_indeterminate: bool
    indeterminate: tuple[float, float] | None = None
    code: Code

    @property
    def decision(self) -> str:
        """The decision in a word: positive, indeterminate or negative."""
        return "positive" if self.is_positive else "indeterminate" if self.is_indeterminate else "negative"

    @property
    def presence(self) -> str:
        """The decision as tables show it, as "normal: positive" reads oddly: present, undetermined or absent."""
        return "present" if self.is_positive else "undetermined" if self.is_indeterminate else "absent"

    def __repr__(self) -> str:
        return f"<Finding {self.label}: {self.probability:.3f}, {self.decision}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them."""
        return {
            "label": self.label,
            "probability": self.probability,
            "threshold": self.threshold,
            "is_positive": self.is_positive,
            "is_indeterminate": self.is_indeterminate,
            "indeterminate": None if self.indeterminate is None else list(self.indeterminate),
            "code": {"value": self.code.value, "scheme": self.code.scheme, "meaning": self.code.meaning},
        }


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EvidenceMap:
    """Where the model saw what speaks for its most probable label: Grad-CAM (Selvaraju et al., ICCV 2017).

    Attributes:
        label: The label it speaks for.
        values: ``(rows, columns)`` float32 from 0 to 1, on the source image's grid; read-only.
        image: Of a study, the place in its answer's ``images``, counted from 0, of the one
            that this is a map of; None of a single image.
    """

    label: str
    values: NDArray[np.float32]
    image: int | None = None

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
        return {"label": self.label, "rows": rows, "columns": columns, "maximum": place, "image": self.image}


@dataclass(frozen=True, kw_only=True)
class ImageFindings:
    """What was found in one image of a study.

    Attributes:
        sop_instance_uid: Its SOP Instance UID; None where the file has none.
        frame_number: Of a multi-frame file, counted from 1; None for all others.
        findings: Every label of the model, most probable first.
    """

    sop_instance_uid: str | None
    frame_number: int | None
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them."""
        return {
            "sop_instance_uid": self.sop_instance_uid,
            "frame_number": self.frame_number,
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Classification(Result):
    """A classifier's answer.

    Attributes:
        findings: Every label of the model, most probable first.
        evidence: The evidence map; None where the model gives none. Of a study, that of the
            image that speaks most for the study's most probable label, among those of which
            it is the most probable one, too; None where there is none.
        images: Of a study, what was found in each image, in their order; empty for a single image.
    """

    findings: tuple[Finding, ...]
    evidence: EvidenceMap | None = None
    images: tuple[ImageFindings, ...] = ()

    @property
    def top(self) -> Finding:
        """The most probable finding."""
        return self.findings[0]

    def __getitem__(self, label: str) -> Finding:
        """The finding of a label.

        Raises:
            KeyError: The model has no such label.
        """
        for finding in self.findings:
            if finding.label == label:
                return finding
        msg = f"no label {label!r}: there are {', '.join(finding.label for finding in self.findings)}"
        raise KeyError(msg)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{finding.label} {finding.probability:.3f}{' (positive)' if finding.is_positive else ''}"
            for finding in self.findings[:SHOWN_FINDINGS]
        )
        more = len(self.findings) - SHOWN_FINDINGS
        return f"<Classification by {self.model} {self.version}: {shown}{f', {more} more' if more > 0 else ''}>"

    def to_secondary_capture(self, source: DicomSource) -> Dataset:
        """The picture with the evidence map over it; see ``radserve.reports.to_secondary_capture``."""
        from radserve import reports  # noqa: PLC0415 - needs pydicom

        return reports.to_secondary_capture(self, source)

    def _view(self) -> View:
        from radserve.results._display import View  # noqa: PLC0415 - brings NumPy
        from radserve.results._pictures import evidence_colours  # noqa: PLC0415 - see above

        shown = self.evidence
        which = "" if shown is None or shown.image is None else f", image {shown.image + 1} of {len(self.images)}"
        return View(
            title=f"{self.model} {self.version}",
            columns=("label", "probability", "decision", "threshold", "code"),
            rows=[
                (
                    finding.label,
                    f"{finding.probability:.3f}",
                    finding.presence,
                    f"{finding.threshold:.3g}",
                    f"{finding.code.meaning} ({finding.code.scheme} {finding.code.value})",
                )
                for finding in self.findings
            ],
            note=self.provenance.intended_use,
            pictures=[] if shown is None else [(f"evidence for {shown.label}{which}", evidence_colours(shown.values))],
        )

    def _content(self) -> dict[str, Any]:
        shown = {} if self.evidence is None else {"evidence": self.evidence.to_dict()}
        of_images = {"images": [image.to_dict() for image in self.images]} if self.images else {}
        return {"findings": [finding.to_dict() for finding in self.findings], **shown, **of_images}
