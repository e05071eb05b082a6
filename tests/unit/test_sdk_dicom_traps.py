"""Files that break the standard in ways that would give a plausible, wrong answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from pydicom.sr.codedict import codes
from support import datasets
from support.datasets import item

from radserve.contracts import Code, FixedWindow, ImageInput, Lead, PercentileWindow, Policy, WaveformInput
from radserve.dicom import open_dicom, read_image, read_waveform
from radserve.errors import DecodeError, InputError, MissingAttributeError, OutOfScopeError
from radserve.preprocess import apply_window, check_scope, image_to_wire, resample, waveform_to_wire
from radserve.sources import Channel, Image, MultiplexGroup, VoiLut, VoiWindow, Waveform

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def make(**attributes: Any) -> Dataset:
    """A radiograph without a rescale, with attributes changed."""
    return datasets.make(**{"Modality": "DX", "RescaleSlope": None, "RescaleIntercept": None, **attributes})


def lut(first: int, vr: str, entries: int = 4) -> Dataset:
    table = item(LUTData=[0] * (entries % 2**16))
    table.add_new("LUTDescriptor", vr, [entries, first, 16])
    return table


def first_mapped(image: Image) -> int:
    table = image.windows[0]
    assert isinstance(table, VoiLut)
    return table.first


@pytest.mark.parametrize(
    ("attributes", "vr", "written", "first"),
    [
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, "US", 64512, -1024),
        ({"RescaleSlope": -1, "RescaleIntercept": 0}, "US", 64512, -1024),
        ({"RescaleSlope": 1, "RescaleIntercept": 0}, "US", 64512, 64512),
        ({"PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": 32768}, "SS", -25536, 40000),
        ({"PixelRepresentation": 1}, "US", 64512, -1024),
        ({}, "US", 40000, 40000),
        ({"PixelRepresentation": 1, "ModalityLUTSequence": [lut(0, "US")]}, "US", 40000, 40000),
    ],
)
def test_a_voi_luts_first_value_has_the_sign_of_the_values_it_maps(
    attributes: dict[str, Any], vr: str, written: int, first: int
) -> None:
    assert first_mapped(read_image(make(**attributes, VOILUTSequence=[lut(written, vr)]))) == first


@pytest.mark.filterwarnings("ignore:.*VR US")
def test_the_number_of_lut_entries_is_never_negative() -> None:
    table = lut(0, "SS", -25536)
    table.LUTData = list(range(40000))
    voi = read_image(make(VOILUTSequence=[table])).windows[0]
    assert isinstance(voi, VoiLut)
    assert len(voi.table) == 40000


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_half_a_rescale_is_refused(keyword: str) -> None:
    with pytest.raises(MissingAttributeError, match="Rescale"):
        read_image(make(**{keyword: 2}))


def test_a_slope_of_0_is_refused() -> None:
    with pytest.raises(DecodeError, match="RescaleSlope"):
        read_image(make(RescaleSlope=0, RescaleIntercept=5))


def described(**changed: Any) -> ImageInput:
    standard: dict[str, Any] = {"modalities": ("DX",), "rows": 4, "columns": 4, "absent_attributes": Policy.ACCEPT}
    return ImageInput(**{**standard, "window": FixedWindow(center=8, width=16), **changed})


@pytest.mark.filterwarnings("ignore:.*VR AS")
@pytest.mark.parametrize(
    ("attributes", "contract", "keyword"),
    [
        ({"BodyPartExamined": ["CHEST", "KNEE"]}, {"body_parts": ("CHEST",)}, "BodyPartExamined"),
        ({"ViewPosition": ["PA", "LL"]}, {"view_positions": ("PA",)}, "ViewPosition"),
        ({"BurnedInAnnotation": ["YES", ""]}, {}, "BurnedInAnnotation"),
        ({"BurnedInAnnotation": ["NO", "YES"]}, {}, "BurnedInAnnotation"),
        ({"PresentationIntentType": ["FOR PROCESSING", ""]}, {}, "PresentationIntentType"),
        ({"PatientAge": "5y"}, {"age_years": (18, 99)}, "PatientAge"),
        ({"PatientAge": "45Y"}, {"age_years": (0, 17)}, "PatientAge"),
    ],
)
def test_loosely_written_attributes_still_count(
    attributes: dict[str, Any], contract: dict[str, Any], keyword: str
) -> None:
    with pytest.raises(OutOfScopeError, match=keyword):
        check_scope(open_dicom(make(**attributes)).scope, described(**contract))


@pytest.mark.filterwarnings("ignore:.*VR AS")
@pytest.mark.parametrize("age", ["045", "Y", "45 X", ["045Y", "046Y"]])
def test_an_age_in_no_form_of_the_standard_matters_only_to_who_asks(age: Any) -> None:
    scope = open_dicom(make(PatientAge=age)).scope
    check_scope(scope, described())
    with pytest.raises(DecodeError, match="PatientAge"):
        check_scope(scope, described(age_years=(0, 99)))
    dated = open_dicom(make(PatientAge=age, PatientBirthDate="20000601", StudyDate="20200601")).scope
    assert dated.patient_age_years == 20


@pytest.mark.parametrize(
    ("code", "view"),
    [
        ("272479007", "PA"),
        ("R-10214", "PA"),
        ("R-10206", "AP"),
        ("399067008", "OTHER"),
        ("DOE^JOHN", "OTHER"),
    ],
)
def test_a_view_that_is_only_coded_is_understood(code: str, view: str) -> None:
    coded = item(CodeValue=code, CodingSchemeDesignator="SCT", CodeMeaning="DOE^JOHN")
    assert open_dicom(make(ViewCodeSequence=[coded])).scope.view_position == view
    assert open_dicom(make(ViewCodeSequence=[coded], ViewPosition="RLD")).scope.view_position == "RLD"


def test_a_coded_view_is_held_to_the_contract() -> None:
    lateral = open_dicom(make(ViewCodeSequence=[item(CodeValue="399173006")])).scope
    check_scope(lateral, described(view_positions=("LL",)))
    with pytest.raises(OutOfScopeError, match="ViewPosition is LL"):
        check_scope(lateral, described(view_positions=("PA", "AP")))
    other = open_dicom(make(ViewCodeSequence=[item(CodeValue="399182000")])).scope
    with pytest.raises(OutOfScopeError, match="ViewPosition is outside"):
        check_scope(other, described(view_positions=("PA", "AP")))
    for absent in (make(), make(ViewCodeSequence=[]), make(ViewCodeSequence=[item(CodeMeaning="oblique")])):
        assert open_dicom(absent).scope.view_position is None


def test_views_are_those_of_the_dictionary() -> None:
    words = {
        "AP": codes.cid4010.AnteroPosterior,
        "PA": codes.cid4010.PosteroAnterior,
        "LL": codes.cid4010.LeftLateral,
        "RL": codes.cid4010.RightLateral,
        "CC": codes.cid4010.CranioCaudal,
        "MLO": codes.cid4010.MedioLateralObliqueProjection,
        "ML": codes.cid4010.MedioLateralProjection,
        "LM": codes.cid4010.LateralMedial,
    }
    for word, code in words.items():
        assert open_dicom(make(ViewCodeSequence=[item(CodeValue=code.value)])).scope.view_position == word


def test_a_high_bit_that_shifts_the_values_is_refused() -> None:
    with pytest.raises(DecodeError, match="HighBit"):
        read_image(make(BitsStored=12, HighBit=15))


def test_monochrome_with_three_samples_is_refused() -> None:
    with pytest.raises(DecodeError, match="SamplesPerPixel"):
        read_image(make(SamplesPerPixel=3, PlanarConfiguration=0, PixelData=bytes(96)))


@pytest.mark.parametrize("frame", [np.int64(1), np.uint8(1)])
def test_a_frame_may_be_a_numpy_integer(frame: Any) -> None:
    dataset = make(NumberOfFrames=2, PixelData=np.arange(32, dtype="<u2").tobytes())
    assert read_image(dataset, frame=frame).values[0, 0] == 16
    with pytest.raises(InputError):
        read_image(dataset, frame=np.bool_(True))  # type: ignore[arg-type]  # noqa: FBT003


def test_a_window_that_lacks_a_value_is_none() -> None:
    image = read_image(make(WindowCenter=["", 40, 50], WindowWidth=[100, 400, ""]))
    assert image.windows == (VoiWindow(center=40, width=400),)


def test_a_width_that_float32_cannot_divide_by_is_refused() -> None:
    window = VoiWindow(center=0, width=1e-40, function="LINEAR_EXACT")
    with pytest.raises(DecodeError, match="WindowWidth"):
        apply_window(np.zeros(1, np.float32), window)


LEAD_I = WaveformInput(
    modalities=("ECG",),
    leads=(Lead(name="I", codes=(Code(value="2:1", scheme="MDC", meaning="Lead I"),)),),
    sampling_frequency_hz=500,
    samples=1000,
)


@pytest.mark.parametrize(
    ("status", "accepted"), [(["OK"], True), (["DISCONNECTED"], False), (["OK", "INVALID"], False)]
)
def test_a_channel_that_is_not_ok_is_no_channel(status: list[str], *, accepted: bool) -> None:
    channel = item(
        ChannelSourceSequence=[item(CodeValue="2:1", CodingSchemeDesignator="MDC")],
        ChannelSensitivity=1,
        ChannelSensitivityUnitsSequence=[item(CodeValue="uV")],
        ChannelStatus=status,
    )
    group = item(
        NumberOfWaveformChannels=1,
        NumberOfWaveformSamples=1000,
        SamplingFrequency=500,
        WaveformBitsAllocated=16,
        WaveformSampleInterpretation="SS",
        ChannelDefinitionSequence=[channel],
        WaveformData=bytes(2000),
    )
    waveform = read_waveform(make(WaveformSequence=[group]))
    if accepted:
        assert waveform_to_wire(waveform, LEAD_I).shape == (1000, 1)
    else:
        with pytest.raises(OutOfScopeError, match="coded as lead I"):
            waveform_to_wire(waveform, LEAD_I)


def recorded(rate: float, seconds: float) -> MultiplexGroup:
    channel = Channel(codes=(("2:1", "MDC"),), microvolts=np.zeros(int(rate * seconds)))
    return MultiplexGroup(sampling_frequency_hz=rate, channels=(channel,))


def test_a_recording_sampled_far_too_slowly_is_refused() -> None:
    with pytest.raises(OutOfScopeError, match="SamplingFrequency"):
        waveform_to_wire(Waveform(groups=(recorded(124, 2),)), LEAD_I)
    assert waveform_to_wire(Waveform(groups=(recorded(1, 60), recorded(125, 2))), LEAD_I).shape == (1000, 1)


@pytest.mark.parametrize("rate_in", [350, 499.37])  # phases that come back unevenly, or never
def test_resampling_puts_every_phase_where_it_belongs(rate_in: float) -> None:
    times = np.arange(3000) / rate_in
    found = resample(np.sin(2 * np.pi * 3 * times), rate_in, 500)
    np.testing.assert_allclose(found, np.sin(2 * np.pi * 3 * np.arange(len(found)) / 500), atol=1e-3)
    assert resample(np.zeros(1), 1000, 500).shape == (0,)


def test_a_ct_without_a_rescale_has_no_hounsfield_units() -> None:
    with pytest.raises(MissingAttributeError, match="RescaleSlope"):
        read_image(make(Modality="CT"))


CT = ImageInput(modalities=("CT",), rows=4, columns=4, window=FixedWindow(center=8, width=16))


def _measured(kind: str | None, form: str) -> Dataset:
    rescale = item(RescaleSlope=1, RescaleIntercept=0, **({"RescaleType": kind} if kind else {}))
    if form == "table":
        table = item(LUTDescriptor=[16, 0, 16], LUTData=list(range(16)), **({"ModalityLUTType": kind} if kind else {}))
        return make(Modality="CT", ModalityLUTSequence=[table])
    if form == "frame":
        group = item(PixelValueTransformationSequence=[rescale])
        return make(Modality="CT", PerFrameFunctionalGroupsSequence=[group])
    return make(Modality="CT", RescaleSlope=1, RescaleIntercept=0, RescaleType=kind)


@pytest.mark.parametrize("form", ["file", "frame", "table"])
@pytest.mark.parametrize(
    ("kind", "accepted"),
    [(None, True), ("HU", True), ("US", True), ("Z_EFF", False), ("MGML", False), ("HU_MOD", False)],
)
def test_a_window_in_hounsfield_units_is_for_hounsfield_units(kind: str | None, form: str, *, accepted: bool) -> None:
    image = read_image(_measured(kind, form))
    assert image.values.ravel().tolist() == list(range(16))
    if accepted:
        assert image_to_wire(image, CT).shape == (4, 4, 1)
        return
    with pytest.raises(OutOfScopeError, match="RescaleType is not HU"):
        image_to_wire(image, CT)
    spread = msgspec.structs.replace(CT, window=PercentileWindow(lower=0, upper=100))
    assert image_to_wire(image, spread).shape == (4, 4, 1)


def test_a_window_of_a_radiograph_is_in_its_own_units() -> None:
    image = read_image(make(RescaleSlope=1, RescaleIntercept=0, RescaleType="OD"))
    assert image_to_wire(image, described()).shape == (4, 4, 1)
