"""Results as models give them, and files that they may be of."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

from radserve import Classification, Finding, GeneratedText, Provenance, Region, Segmentation
from radserve.contracts import Code, Task
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

PNEUMOTHORAX = Code(value="36118008", scheme="SCT", meaning="Pneumothorax")
NORMAL = Code(value="NORMAL", scheme="99RADSERVE", meaning="Normal")
LIVER = Code(value="10200004", scheme="SCT", meaning="Liver")
LESION = Code(value="52988006", scheme="SCT", meaning="Lesion")
ANATOMY = Code(value="91723000", scheme="SCT", meaning="Anatomical Structure")
CREATED = datetime(2026, 11, 22, 10, 30, tzinfo=timezone.utc)


def generated(name: str, **attributes: Any) -> Dataset:
    """A generated file of a reference model, with attributes changed; None removes one."""
    dataset = pydicom.dcmread(BytesIO(_bytes(name)))
    for keyword, value in attributes.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return dataset


@lru_cache
def _bytes(name: str) -> bytes:
    source = next(iter(generate(name, 1, seed=5, split=Split.TEST))).source
    assert isinstance(source, bytes)
    return source


def content(dataset: Dataset) -> bytes:
    """The file of a data set."""
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def provenance(
    sources: Sequence[Dataset] = (), *, frames: tuple[int, ...] = (), task: Task = Task.IMAGE_CLASSIFICATION
) -> Provenance:
    return Provenance(
        task=task,
        intended_use="Tests only",
        model_sha256="0" * 64,
        contract_sha256="1" * 64,
        sdk_version="0.1.0",
        sop_instance_uids=tuple(str(source.SOPInstanceUID) for source in sources),
        frame_numbers=frames,
        request_id="r",
        created=CREATED,
    )


def finding(label: str = "pneumothorax", probability: float = 0.9375, **changed: Any) -> Finding:
    standard: dict[str, Any] = {
        "label": label,
        "probability": probability,
        "threshold": 0.5,
        "is_positive": probability >= 0.5,
        "is_indeterminate": False,
        "code": PNEUMOTHORAX if label == "pneumothorax" else NORMAL,
    }
    return Finding(**{**standard, **changed})


def classification(*sources: Dataset, frames: tuple[int, ...] = (), **changed: Any) -> Classification:
    standard: dict[str, Any] = {
        "model": "chest",
        "version": 3,
        "provenance": provenance(sources, frames=frames),
        "findings": (finding(), finding("normal", 0.125)),
    }
    return Classification(**{**standard, **changed})


def segmentation(
    label_map: NDArray[np.uint8], *sources: Dataset, frames: tuple[int, ...] = (), **changed: Any
) -> Segmentation:
    counts = [int(np.count_nonzero(label_map == value)) for value in (1, 2)]
    regions = tuple(
        Region(
            label=label,
            value=value,
            is_positive=count > 0,
            pixel_count=count,
            area_mm2=count / 4 if label_map.ndim == 2 else None,
            volume_mm3=count / 2 if label_map.ndim == 3 else None,
            code=code,
            category=ANATOMY if code is LIVER else None,
        )
        for value, (label, code, count) in enumerate(
            zip(("liver", "lesion"), (LIVER, LESION), counts, strict=True), start=1
        )
    )
    standard: dict[str, Any] = {
        "model": "ct_lesion",
        "version": 2,
        "provenance": provenance(sources, frames=frames, task=Task.IMAGE_SEGMENTATION),
    }
    return Segmentation(**{**standard, "label_map": label_map, "findings": regions, **changed})


def drawn(*shape: int) -> NDArray[np.uint8]:
    """A label map with both labels at places that no flip or transposition leaves alone."""
    label_map = np.zeros(shape, np.uint8)
    label_map[..., 3 : shape[-2] // 2, 5 : shape[-1] // 3] = 1
    label_map[..., 7:11, 9:12] = 2
    return label_map


def generated_text(text: str = "No pneumothorax.", **changed: Any) -> GeneratedText:
    standard: dict[str, Any] = {
        "model": "impression",
        "version": 1,
        "provenance": provenance(task=Task.TEXT_GENERATION),
        "text": text,
        "is_complete": True,
        "log_probability": -0.5,
    }
    return GeneratedText(**{**standard, **changed})
