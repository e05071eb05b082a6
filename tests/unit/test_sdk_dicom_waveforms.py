"""Reading DICOM waveforms: microvolts by coded lead, or the right typed error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian
from support.datasets import TEST_FILES, item, make

from radserve.dicom import read_waveform
from radserve.errors import DicomError, OutOfScopeError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def ecg(**attributes: Any) -> Dataset:
    def channel(**changed: Any) -> Dataset:
        standard = {
            "ChannelSourceSequence": [item(CodeValue="2:1", CodingSchemeDesignator="MDC", CodeMeaning="Lead I")],
            "ChannelSensitivity": 5,
            "ChannelSensitivityUnitsSequence": [item(CodeValue="uV", CodingSchemeDesignator="UCUM")],
            "ChannelSensitivityCorrectionFactor": 2,
            "ChannelBaseline": 1,
        }
        return item(**{**standard, **changed})

    group = item(
        NumberOfWaveformChannels=2,
        NumberOfWaveformSamples=3,
        SamplingFrequency=500,
        WaveformBitsAllocated=16,
        WaveformSampleInterpretation="SS",
        ChannelDefinitionSequence=[
            channel(),
            channel(ChannelSensitivityUnitsSequence=[item(CodeValue="mV", CodingSchemeDesignator="UCUM")]),
        ],
        WaveformData=np.array([[1, 10], [-2, 20], [3, 30]], dtype="<i2").tobytes(),
    )
    for keyword, value in attributes.items():
        setattr(group, keyword, value)
    dataset = make(PixelData=None, Modality="ECG")
    dataset.WaveformSequence = [group]
    return dataset


def test_samples_become_microvolts_by_sensitivity_correction_and_baseline() -> None:
    group = read_waveform(ecg()).groups[0]
    assert group.sampling_frequency_hz == 500
    assert group.channels[0].codes == (("2:1", "MDC"),)
    assert group.channels[0].microvolts.tolist() == [11, -19, 31]
    assert group.channels[1].microvolts.tolist() == [101_000, 201_000, 301_000]


@pytest.mark.parametrize(
    ("interpretation", "dtype"),
    [("SB", "i1"), ("UB", "u1"), ("SS", "<i2"), ("US", "<u2"), ("SL", "<i4"), ("UL", "<u4")],
)
def test_all_sample_types_are_read(interpretation: str, dtype: str) -> None:
    samples = np.array([[1, 10], [2, 20], [3, 30]], dtype=dtype)
    dataset = ecg(
        WaveformSampleInterpretation=interpretation,
        WaveformBitsAllocated=samples.dtype.itemsize * 8,
        WaveformData=samples.tobytes(),
    )
    assert read_waveform(dataset).groups[0].channels[0].microvolts.tolist() == [11, 21, 31]


def test_big_endian_samples_are_read() -> None:
    dataset = ecg(WaveformData=np.array([[1, 10], [-2, 20], [3, 30]], dtype=">i2").tobytes())
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
    assert read_waveform(dataset).groups[0].channels[0].microvolts.tolist() == [11, -19, 31]


def test_padded_samples_are_not_numbers() -> None:
    dataset = ecg(WaveformPaddingValue=np.array(-2, "<i2").tobytes())
    assert np.isnan(read_waveform(dataset).groups[0].channels[0].microvolts).tolist() == [False, True, False]


def test_a_channel_that_measures_no_voltage_is_left_out() -> None:
    dataset = ecg()
    dataset.WaveformSequence[0].ChannelDefinitionSequence[1].ChannelSensitivityUnitsSequence[0].CodeValue = "mm[Hg]"
    assert len(read_waveform(dataset).groups[0].channels) == 1


@pytest.mark.parametrize("keyword", ["ChannelTimeSkew", "ChannelSampleSkew", "ChannelOffset"])
def test_a_channel_shifted_in_time_is_refused(keyword: str) -> None:
    dataset = ecg()
    channel = dataset.WaveformSequence[0].ChannelDefinitionSequence[1]
    setattr(channel, keyword, "0")
    assert len(read_waveform(dataset).groups[0].channels) == 2
    setattr(channel, keyword, "-0.5")
    with pytest.raises(OutOfScopeError, match=keyword):
        read_waveform(dataset)


@pytest.mark.parametrize(
    "attributes",
    [
        {"WaveformSampleInterpretation": "MB"},
        {"WaveformBitsAllocated": 8},
        {"NumberOfWaveformSamples": 2**31},
        {"NumberOfWaveformSamples": 4},
        {"NumberOfWaveformChannels": 3, "NumberOfWaveformSamples": 2},
        {"SamplingFrequency": 0},
        {"WaveformData": b""},
    ],
)
def test_a_waveform_that_contradicts_itself_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(DicomError):
        read_waveform(ecg(**attributes))


def test_the_shipped_ecg_holds_its_first_samples() -> None:
    groups = read_waveform(TEST_FILES / "waveform_ecg.dcm").groups
    assert [len(group.channels) for group in groups] == [12, 12]
    assert groups[0].channels[0].microvolts[:3].tolist() == [100, 81.25, 62.5]
