"""What a model answers: frozen, typed, coded, and traceable to the model that said it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from radserve.contracts import Code
    from radserve.errors import RadserveError

_SHOWN_FINDINGS = 3


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
class Classification:
    """A classifier's answer.

    Attributes:
        model: The public model's name.
        version: The model version that answered.
        findings: Every label of the model, most probable first.
        provenance: Where the answer comes from.
    """

    model: str
    version: int
    findings: tuple[Finding, ...]
    provenance: Provenance = field(repr=False)

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them."""
        return {
            "model": self.model,
            "version": self.version,
            "findings": [finding.to_dict() for finding in self.findings],
            **self.provenance.to_dict(),
        }

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """One input of ``predict_many`` that got no answer.

    Attributes:
        index: Its place in the inputs, counted from 0.
        error: Why.
    """

    index: int
    error: RadserveError
