"""What every answer has: who gave it, of which input, and when."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rich.table import Table

    from radserve.contracts import Task
    from radserve.errors import RadserveError
    from radserve.reports import Dataset, DicomSource
    from radserve.results._display import View

SHOWN_FINDINGS = 3


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an answer comes from.

    Attributes:
        task: What the model does.
        intended_use: What the model may be used for; show it with the answer.
        model_sha256: Hash of the trained model file.
        contract_sha256: Hash of the contract that prepared the input.
        sdk_version: Version of radserve that prepared the input.
        sop_instance_uids: SOP Instance UIDs of the input; empty where it was no DICOM file.
        frame_numbers: Of a multi-frame file, the frames that were answered, counted from 1 as
            Referenced Frame Number (0008,1160) is; empty for all others. Where there are several
            files, those of all in one row: a classification's ``images`` say which is whose.
        request_id: The id in the server's log.
        created: When the answer came, UTC.
    """

    task: Task
    intended_use: str
    model_sha256: str
    contract_sha256: str
    sdk_version: str
    sop_instance_uids: tuple[str, ...]
    frame_numbers: tuple[int, ...] = ()
    request_id: str
    created: datetime

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them."""
        return {
            "task": self.task.value,
            "intended_use": self.intended_use,
            "model_sha256": self.model_sha256,
            "contract_sha256": self.contract_sha256,
            "sdk_version": self.sdk_version,
            "sop_instance_uids": list(self.sop_instance_uids),
            "frame_numbers": list(self.frame_numbers),
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

    @abstractmethod
    def _view(self) -> View:
        """What is shown of it in notebooks and terminals."""

    def _repr_html_(self) -> str:
        """What notebooks show: a table with pictures."""
        from radserve.results._display import as_html  # noqa: PLC0415 - brings NumPy and Pillow

        return as_html(self._view())

    def __rich__(self) -> Table:
        """What ``rich.print`` shows: a table."""
        from radserve.results._display import as_table  # noqa: PLC0415 - brings NumPy

        return as_table(self._view())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``to_json`` writes them; arrays are left out."""
        return {"model": self.model, "version": self.version, **self._content(), **self.provenance.to_dict()}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def to_dicom_sr(
        self,
        source: DicomSource | Sequence[DicomSource],
        *,
        segmentation: Dataset | None = None,
        study_instance_uid: str | None = None,
    ) -> Dataset:
        """The result as a DICOM structured report; see ``radserve.reports.to_dicom_sr``."""
        from radserve import reports  # noqa: PLC0415 - needs pydicom and an extra

        return reports.to_dicom_sr(self, source, segmentation=segmentation, study_instance_uid=study_instance_uid)

    def to_fhir(self, *, subject: str | None = None) -> dict[str, Any]:
        """The result as a FHIR R4 DiagnosticReport; see ``radserve.reports.to_fhir``."""
        from radserve import reports  # noqa: PLC0415 - needs an extra

        return reports.to_fhir(self, subject=subject)


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """One input of ``predict_many`` that got no answer.

    It does not hold the input, so that nothing of a patient gets into logs with it:
    ``zip(paths, model.predict_many(paths))`` says which it was.

    Attributes:
        index: Its place in the inputs, counted from 0.
        error: Why.
    """

    index: int
    error: RadserveError


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run of ``predict_many`` has come.

    Attributes:
        done: Inputs that were answered or refused so far.
        failed: How many of them were refused.
        total: How many there are; None where the inputs do not say it.
    """

    done: int
    failed: int
    total: int | None
