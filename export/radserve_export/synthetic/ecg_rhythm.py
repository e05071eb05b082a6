"""Generated 12-lead ECGs of ten seconds, written as valid DICOM files. No patient is in them.

Training and test files come from the same model of the heart, but from
disjoint random streams: none is in both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage

from radserve import sources
from radserve_export.synthetic import Sample, Split
from radserve_export.synthetic._ecg_signal import LEADS, RATES_PER_MINUTE, electrocardiogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LABELS: Final = tuple(RATES_PER_MINUTE)

# Code Value (MDC) and Code Meaning of the leads: PS3.16 CID 3001 "ECG Lead".
_MDC_LEADS: Final = {
    "I": ("2:1", "Lead I"),
    "II": ("2:2", "Lead II"),
    "III": ("2:61", "Lead III"),
    "aVR": ("2:62", "aVR, augmented voltage, right"),
    "aVL": ("2:63", "aVL, augmented voltage, left"),
    "aVF": ("2:64", "aVF, augmented voltage, foot"),
    "V1": ("2:3", "Lead V1"),
    "V2": ("2:4", "Lead V2"),
    "V3": ("2:5", "Lead V3"),
    "V4": ("2:6", "Lead V4"),
    "V5": ("2:7", "Lead V5"),
    "V6": ("2:8", "Lead V6"),
}
_SENSITIVITIES_UV: Final = (1.25, 2.5, 4.88)
_SHUFFLED_SHARE: Final = 0.4
_TRIMMED_SHARE: Final = 0.5
_IMPLEMENTATION_UID: Final = UID("2.25.242018498230517834127601365912206430215")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a recorder stores.

    Attributes:
        label: One of LABELS.
        frequency_hz: Samples a second.
        leads: Names of the channels, in the file's order.
        counts: Stored integers, int16 ``(samples, channels)``.
        sensitivity_uv: Microvolts a count, before correction.
        corrections: Channel Sensitivity Correction Factor of each channel.
        baselines_uv: Channel Baseline of each channel, microvolts.
    """

    label: str
    frequency_hz: int
    leads: tuple[str, ...]
    counts: NDArray[np.int16]
    sensitivity_uv: float
    corrections: NDArray[np.float64]
    baselines_uv: NDArray[np.float64]

    def to_waveform(self) -> sources.Waveform:
        """What reading the DICOM file of this recording gives, without writing it."""
        microvolts = self.counts * (self.sensitivity_uv * self.corrections) + self.baselines_uv
        channels = tuple(
            sources.Channel(codes=((_MDC_LEADS[lead][0], "MDC"),), microvolts=microvolts[:, place])
            for place, lead in enumerate(self.leads)
        )
        group = sources.MultiplexGroup(sampling_frequency_hz=float(self.frequency_hz), channels=channels)
        scope = sources.Scope(modality="ECG", sop_class_uid=str(TwelveLeadECGWaveformStorage))
        return sources.Waveform(groups=(group,), scope=scope)


def generate(count: int, *, seed: int, split: Split) -> Iterator[Sample]:
    """Generate DICOM files of the five rhythms.

    Every five samples in a row hold each rhythm once.

    Args:
        count: How many.
        seed: The same seed yields the same bytes.
        split: Training or held-out random stream.

    Yields:
        12-Lead ECG Waveform Storage files with the rhythm's name.
    """
    for index in range(count):
        recording = record(index, seed=seed, split=split)
        rng = _stream(split, seed, "identity", index)
        yield Sample(source=to_dicom(recording, rng), label=recording.label)


def record(index: int, *, seed: int, split: Split) -> Recording:
    """Generate the recording that the sample at a position of ``generate`` holds.

    Args:
        index: Position, from 0.
        seed: As for ``generate``.
        split: As for ``generate``.
    """
    block, position = divmod(index, len(LABELS))
    label = LABELS[_stream(split, seed, "order", block).permutation(len(LABELS))[position]]
    rng = _stream(split, seed, "sample", index)
    frequency_hz = int(rng.choice((250, 500, 1000), p=(0.3, 0.5, 0.2)))
    microvolts = electrocardiogram(label, frequency_hz, rng) * 1000.0
    places = rng.permutation(len(LEADS)) if rng.random() < _SHUFFLED_SHARE else np.arange(len(LEADS))
    sensitivity_uv = float(rng.choice(_SENSITIVITIES_UV))
    trimmed = rng.random() < _TRIMMED_SHARE
    # Rounded to what a decimal string in the file holds.
    corrections = np.round(rng.uniform(0.97, 1.03, len(LEADS)), 4) if trimmed else np.ones(len(LEADS))
    baselines_uv = np.round(rng.uniform(-60.0, 60.0, len(LEADS)), 2) if trimmed else np.zeros(len(LEADS))
    counts = (microvolts[places].T - baselines_uv) / (sensitivity_uv * corrections)
    limits = np.iinfo(np.int16)
    return Recording(
        label=label,
        frequency_hz=frequency_hz,
        leads=tuple(LEADS[place] for place in places),
        counts=np.clip(np.rint(counts), limits.min, limits.max).astype(np.int16),
        sensitivity_uv=sensitivity_uv,
        corrections=corrections,
        baselines_uv=baselines_uv,
    )


def _stream(split: Split, seed: int, purpose: str, index: int) -> np.random.Generator:
    """A random stream of its own for each split, seed, purpose and index."""
    digest = hashlib.sha256(f"ecg_rhythm/{split.value}/{seed}/{purpose}/{index}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def to_dicom(recording: Recording, rng: np.random.Generator) -> bytes:
    """Write a recording as a 12-Lead ECG Waveform Storage file (PS3.3 A.34.3).

    Args:
        recording: What to write.
        rng: Draws the identifiers.
    """
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformSamples, group.NumberOfWaveformChannels = recording.counts.shape
    group.SamplingFrequency = str(recording.frequency_hz)
    group.MultiplexGroupLabel = "RHYTHM"
    group.ChannelDefinitionSequence = [
        _channel(lead, recording.sensitivity_uv, recording.corrections[place], recording.baselines_uv[place])
        for place, lead in enumerate(recording.leads)
    ]
    group.WaveformBitsAllocated = 16
    group.WaveformSampleInterpretation = "SS"
    group.WaveformData = recording.counts.astype("<i2").tobytes()

    dataset = _header(rng)
    dataset.WaveformSequence = [group]
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _channel(lead: str, sensitivity_uv: float, correction: float, baseline_uv: float) -> Dataset:
    """One item of the Channel Definition Sequence (PS3.3 C.10.9)."""
    channel = Dataset()
    channel.ChannelSourceSequence = [_code(_MDC_LEADS[lead][0], "MDC", _MDC_LEADS[lead][1])]
    channel.ChannelSensitivity = f"{sensitivity_uv:g}"
    channel.ChannelSensitivityUnitsSequence = [_code("uV", "UCUM", "microvolt")]
    channel.ChannelSensitivityCorrectionFactor = f"{correction:g}"
    channel.ChannelBaseline = f"{baseline_uv:g}"
    channel.ChannelSampleSkew = "0"
    channel.WaveformBitsStored = 16
    return channel


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = scheme
    code.CodeMeaning = meaning
    return code


def _header(rng: np.random.Generator) -> Dataset:
    """All modules but the Waveform Module; the person is plainly not one."""
    number = int(rng.integers(1_000_000))
    instance, series, study = (UID(f"2.25.{int.from_bytes(rng.bytes(16), 'big')}") for _ in range(3))
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = TwelveLeadECGWaveformStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Set here so that the bytes do not change with pydicom's version.
    dataset.file_meta.ImplementationClassUID = _IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = "RADSERVE"

    dataset.SOPClassUID = TwelveLeadECGWaveformStorage
    dataset.SOPInstanceUID = instance
    dataset.PatientName = f"SYNTHETIC^ECG{number:06d}"
    dataset.PatientID = f"SYNTHETIC-{number:06d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = str(rng.choice(("F", "M", "O")))
    dataset.StudyInstanceUID = study
    dataset.StudyDate = dataset.ContentDate = "20260101"
    dataset.StudyTime = dataset.ContentTime = "120000"
    dataset.AcquisitionDateTime = "20260101120000"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.Modality = "ECG"
    dataset.SeriesInstanceUID = series
    dataset.SeriesNumber = "1"
    dataset.InstanceNumber = "1"
    dataset.Manufacturer = "radserve synthetic data"
    dataset.ManufacturerModelName = "ecg_rhythm"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    # PS3.16 TID 3401 "ECG Acquisition Context"; the value is from CID 3263.
    placement = Dataset()
    placement.ValueType = "CODE"
    placement.ConceptNameCodeSequence = [_code("10:11345", "MDC", "Lead System")]
    meaning = "Standard 12-lead positions, electrodes placed individually"
    placement.ConceptCodeSequence = [_code("10:11265", "MDC", meaning)]
    dataset.AcquisitionContextSequence = [placement]
    return dataset
