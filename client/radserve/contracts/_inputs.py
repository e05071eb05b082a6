"""What a model accepts, and what the client does to a file before it travels."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import msgspec

from radserve.contracts._tensors import Code, Struct

CodeString = Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
Uid = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)*\Z")]
CodeStrings = Annotated[tuple[CodeString, ...], msgspec.Meta(max_length=64)]
Uids = Annotated[tuple[Uid, ...], msgspec.Meta(max_length=256)]
Finite = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class Policy(str, Enum):
    """What to do with an input that has a property the model was not made for."""

    REFUSE = "refuse"
    ACCEPT = "accept"


class Aspect(str, Enum):
    """How an image of another aspect ratio is brought to the model's size."""

    STRETCH = "stretch"
    PAD = "pad"
    CROP = "crop"


class PixelAspect(str, Enum):
    """What to do with pixels that are not square."""

    IGNORE = "ignore"
    SQUARE = "square"


class Combination(str, Enum):
    """How the answers about a study's images become one, label by label.

    The rules for independent images: ``noisy_or`` is the probability that at
    least one of them shows it (Pearl, Probabilistic Reasoning, 1988).
    """

    MAXIMUM = "maximum"
    MEAN = "mean"
    NOISY_OR = "noisy_or"


class FileWindow(Struct, frozen=True, kw_only=True, tag_field="kind", tag="file"):
    """The VOI LUT or window that the file itself carries.

    Attributes:
        index: Which of several windows.
        fallback_percentiles: Where the file carries none, the percentiles of
            the modality values to use; None refuses such a file.
    """

    index: Annotated[int, msgspec.Meta(ge=0, le=15)] = 0
    fallback_percentiles: tuple[Percent, Percent] | None = None

    def __post_init__(self) -> None:
        """Refuse a window turned upside down."""
        if self.fallback_percentiles and self.fallback_percentiles[0] >= self.fallback_percentiles[1]:
            msg = "lower percentile is not below the upper one"
            raise ValueError(msg)


class FixedWindow(Struct, frozen=True, kw_only=True, tag_field="kind", tag="fixed"):
    """One window for every file, in modality units (HU for CT).

    Attributes:
        center: Window Center (0028,1050).
        width: Window Width (0028,1051).
    """

    center: Finite
    width: Annotated[float, msgspec.Meta(ge=1, le=1e9)]


class PercentileWindow(Struct, frozen=True, kw_only=True, tag_field="kind", tag="percentile"):
    """From percentiles of the frame's own modality values, for units without a scale (MR)."""

    lower: Percent
    upper: Percent

    def __post_init__(self) -> None:
        """Refuse a window turned upside down."""
        if self.lower >= self.upper:
            msg = "lower percentile is not below the upper one"
            raise ValueError(msg)


Window = FileWindow | FixedWindow | PercentileWindow


class Resize(Struct, frozen=True, kw_only=True):
    """How the frame is brought to the model's rows and columns.

    Bilinear with anti-aliasing, as ``tf.image.resize(antialias=True)`` defines it.

    Attributes:
        aspect: For a frame of another aspect ratio.
        pixels: ``square`` takes the aspect ratio of the frame in the patient, by Pixel
            Spacing (0028,0030), Imager Pixel Spacing (0018,1164) or Pixel Aspect
            Ratio (0028,0034), instead of that of its rows and columns.
    """

    aspect: Aspect = Aspect.STRETCH
    pixels: PixelAspect = PixelAspect.IGNORE


_MOST_CUT = 0.95


class Crop(Struct, frozen=True, kw_only=True):
    """What is cut off the source frame before anything else is done with it.

    For what the device burns into a known place of every frame: name, date,
    scales. What is cut off reaches neither the network nor the wire.

    Attributes:
        top: Fraction of the rows cut off at the top.
        left: Fraction of the columns cut off at the left.
        bottom: Fraction of the rows cut off at the bottom.
        right: Fraction of the columns cut off at the right.
    """

    top: Fraction = 0.0
    left: Fraction = 0.0
    bottom: Fraction = 0.0
    right: Fraction = 0.0

    def __post_init__(self) -> None:
        """Refuse a crop that cuts nothing, or next to everything."""
        if max(self.top + self.bottom, self.left + self.right) > _MOST_CUT:
            msg = f"the crop cuts off more than {_MOST_CUT:.0%} of the image"
            raise ValueError(msg)
        if not any((self.top, self.left, self.bottom, self.right)):
            msg = "the crop cuts nothing off: leave it out"
            raise ValueError(msg)


_Count = Annotated[int, msgspec.Meta(ge=1, le=4096)]
_Gap = Annotated[float, msgspec.Meta(ge=0, le=1)]


class EveryImage(Struct, frozen=True, kw_only=True, tag_field="mode", tag="every_image"):
    """A series, or a multi-frame file, is answered image by image.

    Attributes:
        combination: How a classifier's answers become the study's, for exclusive labels
            ``mean`` alone; those of a segmentation are stacked.
        images: Fewest and most images of a study.
        maximum_gap: How much larger than their median a distance between slices may
            be, as a fraction of it; images without a position have none.
    """

    combination: Combination = Combination.MAXIMUM
    images: tuple[_Count, _Count] = (1, 4096)
    maximum_gap: _Gap = 0.1

    def __post_init__(self) -> None:
        """Refuse a range that no study is in."""
        if self.images[0] > self.images[1]:
            msg = "the fewest images are more than the most"
            raise ValueError(msg)


class WholeVolume(Struct, frozen=True, kw_only=True, tag_field="mode", tag="volume"):
    """A series is one volume, sent in one request.

    Attributes:
        slices: Slices on the wire; the volume is resampled to them.
        spacing_mm: Distance between slices, rows and columns that it is resampled to
            first, then padded or cropped around its middle; None stretches it.
        maximum_gap: As ``EveryImage.maximum_gap``.
    """

    slices: _Count
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    maximum_gap: _Gap = 0.1


Study = EveryImage | WholeVolume


class ImageInput(Struct, frozen=True, kw_only=True, tag_field="kind", tag="image"):
    """DICOM images: scope, then the steps from file to wire.

    An empty tuple means "any". The scope attributes are checked where the
    file has them; ``absent_attributes`` says what happens where it has not.

    Attributes:
        modalities: Modality (0008,0060).
        sop_classes: SOP Class UID (0008,0016).
        body_parts: Body Part Examined (0018,0015).
        view_positions: View Position (0018,5101); where a file has none, what its View Code
            Sequence (0054,0220) means.
        age_years: Lowest and highest patient age, inclusive.
        absent_attributes: For a scope attribute that the file lacks.
        for_processing: For Presentation Intent Type (0008,0068) FOR PROCESSING.
        burned_in_annotation: For Burned In Annotation (0028,0301) YES; accept it
            where ``crop`` removes the text, so that it does not travel.
        rows: Height on the wire, pixels.
        columns: Width on the wire, pixels.
        photometric: MONOCHROME2 (one channel, high is bright) or RGB.
        wire_dtype: Element type on the wire; the window spans its full range.
        crop: What is cut off the source frame first; None keeps all of it.
            Percentiles are those of what is kept.
        window: Modality values to display values.
        resize: Display values to rows and columns.
        study: How a series or a multi-frame file is answered; None takes one image.
    """

    modalities: Annotated[CodeStrings, msgspec.Meta(min_length=1)]
    sop_classes: Uids = ()
    body_parts: CodeStrings = ()
    view_positions: CodeStrings = ()
    age_years: tuple[Annotated[float, msgspec.Meta(ge=0)], Annotated[float, msgspec.Meta(le=150)]] | None = None
    absent_attributes: Policy = Policy.REFUSE
    for_processing: Policy = Policy.REFUSE
    burned_in_annotation: Policy = Policy.REFUSE
    rows: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    columns: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    photometric: Literal["MONOCHROME2", "RGB"] = "MONOCHROME2"
    wire_dtype: Literal["UINT8", "UINT16"] = "UINT8"
    crop: Crop | None = None
    window: Window
    resize: Resize = Resize()
    study: Study | None = None

    def __post_init__(self) -> None:
        """Refuse an age range that no patient is in."""
        if self.age_years is not None and self.age_years[0] > self.age_years[1]:
            msg = "the lowest age is above the highest"
            raise ValueError(msg)

    @property
    def channels(self) -> int:
        """Samples per pixel on the wire."""
        return 3 if self.photometric == "RGB" else 1

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns on the wire; slices in front where one request carries a volume."""
        return (*((self.study.slices,) if isinstance(self.study, WholeVolume) else ()), self.rows, self.columns)


class Lead(Struct, frozen=True, kw_only=True):
    """One waveform channel, found in the file by its code, never by its place.

    Attributes:
        name: What people call it, for example ``"aVR"``.
        codes: Codes of Channel Source Sequence (003A,0208) that mean this lead;
            schemes differ between makers (MDC, SCPECG).
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    codes: Annotated[tuple[Code, ...], msgspec.Meta(min_length=1, max_length=8)]


class WaveformInput(Struct, frozen=True, kw_only=True, tag_field="kind", tag="waveform"):
    """DICOM waveforms: scope, then the steps from file to wire.

    Attributes:
        modalities: Modality (0008,0060).
        sop_classes: SOP Class UID (0008,0016).
        leads: Channels in the order the network was trained on.
        sampling_frequency_hz: Rate on the wire; others are resampled with anti-aliasing.
        samples: Samples a channel on the wire.
        longer: For a recording longer than ``samples``: accept takes its beginning.
        resolution_uv: Microvolts one step of the wire's integers stands for.
        wire_dtype: Element type on the wire.
    """

    modalities: Annotated[CodeStrings, msgspec.Meta(min_length=1)]
    sop_classes: Uids = ()
    leads: Annotated[tuple[Lead, ...], msgspec.Meta(min_length=1, max_length=64)]
    sampling_frequency_hz: Annotated[float, msgspec.Meta(ge=0.1, le=100_000)]
    samples: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    longer: Policy = Policy.REFUSE
    resolution_uv: Positive = 1.0
    wire_dtype: Literal["INT16"] = "INT16"


class TextInput(Struct, frozen=True, kw_only=True, tag_field="kind", tag="text"):
    """Report text, tokenised on the server.

    Attributes:
        languages: ISO 639-1 codes the model was trained on.
        max_tokens: The longest report the model reads, as the server counts tokens.
        max_bytes: The longest text the client sends, UTF-8.
    """

    languages: Annotated[tuple[Annotated[str, msgspec.Meta(pattern="^[a-z]{2}$")], ...], msgspec.Meta(min_length=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    max_bytes: Annotated[int, msgspec.Meta(ge=1, le=16 * 2**20)] = 65_536
