"""Populations that drifted, and how far they are from a reference."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

Source = bytes | str


def told_distance(registry: CollectorRegistry, histogram: str, **labels: str) -> float:
    """Kolmogorov-Smirnov distance of what was observed and the reference beside it, as the alert computes it."""
    found: dict[tuple[str, str], float] = {}
    for sample in (sample for metric in registry.collect() for sample in metric.samples):
        if labels.items() <= sample.labels.items():
            found[sample.name, sample.labels.get("le", "")] = sample.value
    count = found[f"{histogram}_count", ""]
    edges = [le for name, le in found if name == f"{histogram}_bucket"]
    return max(abs(found[f"{histogram}_bucket", le] / count - found[f"{histogram}_reference", le]) for le in edges)


def _changed(change: Callable[[Any], None]) -> Callable[[Source], Source]:
    def of(source: Source) -> Source:
        assert isinstance(source, bytes)
        dataset = pydicom.dcmread(BytesIO(source))
        change(dataset)
        written = BytesIO()
        dataset.save_as(written)
        return written.getvalue()

    return of


def _other_window(dataset: Any) -> None:
    dataset.WindowCenter = float(dataset.WindowCenter) + float(dataset.WindowWidth) / 4


def _other_photometric(dataset: Any) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME1"


def _hundred_hounsfield_more(dataset: Any) -> None:
    dataset.RescaleIntercept = float(dataset.RescaleIntercept) + 100


def _darker(dataset: Any) -> None:
    pixels = np.frombuffer(dataset.PixelData, np.uint8)
    dataset.PixelData = (pixels * 0.6).astype(np.uint8).tobytes()


def _twice_the_gain(dataset: Any) -> None:
    for group in dataset.WaveformSequence:
        for channel in group.ChannelDefinitionSequence:
            channel.ChannelSensitivity = 2 * float(channel.ChannelSensitivity)


def _cut_short(source: Source) -> Source:
    assert isinstance(source, str)
    return source[: -(-len(source) // 4)]


SHIFTS: dict[str, Callable[[Source], Source]] = {
    "brain_mri": _changed(_other_photometric),
    "breast_ultrasound": _changed(_darker),
    # inverted, a chest radiograph is as bright as before, and its scores are up to 0.24 away
    "chest_xray": _changed(_other_window),
    "ct_hemorrhage": _changed(_hundred_hounsfield_more),
    "ct_lesion": _changed(_hundred_hounsfield_more),
    "ecg_rhythm": _changed(_twice_the_gain),
    "report_impression": _cut_short,
    "report_triage": _cut_short,
}
"""What happens to each reference model's inputs: a wrong attribute, another setting, texts cut short."""
