"""How a frame lies on the wire's grid, and the way back from there.

Pixel ``i`` of a grid covers ``i`` to ``i + 1``, its centre is ``i + 0.5``: the
half-pixel convention of ``tf.image.resize``. One description serves both ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from radserve.contracts import Aspect, PixelAspect
from radserve.errors import DecodeError
from radserve.preprocess._crop import crop_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radserve.contracts import ImageInput

    Pixels = TypeVar("Pixels", bound=np.generic)

_LARGEST_PIXEL_ASPECT = 16.0


@dataclass(frozen=True, kw_only=True)
class Span:
    """One axis: the pixels of the frame that are used, and where on the wire's axis they are stretched to.

    Attributes:
        source: Length of the frame's axis, pixels.
        start: The first pixel used.
        used: How many are used.
        wire: Length of the wire's axis.
        offset: Wire pixel at which the used ones begin; negative where what lies before is cut off.
        length: Wire pixels over which they are stretched; they may reach beyond the wire's end.
    """

    source: int
    start: int
    used: int
    wire: int
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a frame, or a stack of them, lies on the wire's grid.

    Attributes:
        rows: The vertical axis.
        columns: The horizontal axis.
        slices: Of a volume, the axis along the slice normal; None of a frame.
    """

    rows: Span
    columns: Span
    slices: Span | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """The axes in the order of an array's."""
        return (*((self.slices,) if self.slices else ()), self.rows, self.columns)

    @property
    def kept(self) -> Placement:
        """How that part of the frame lies on the wire which the crop leaves."""
        return replace(self, rows=_kept(self.rows), columns=_kept(self.columns))


def _kept(span: Span) -> Span:
    return replace(span, source=span.used, start=0)


def place(
    frame: tuple[int, int],
    wire: tuple[int, int],
    aspect: Aspect,
    box: tuple[int, int, int, int] | None = None,
    *,
    pixel_aspect: float = 1.0,
) -> Placement:
    """Where the part of a frame that a model looks at comes to lie on the wire's grid.

    Args:
        frame: Rows and columns of the frame.
        wire: Rows and columns on the wire.
        aspect: STRETCH fills the wire; PAD keeps the aspect ratio and leaves
            both sides free, CROP keeps it and cuts both sides, evenly.
        box: Top, left, bottom and right of the part; None is the whole frame.
        pixel_aspect: Height of a pixel through its width.
    """
    top, left, bottom, right = box or (0, 0, *frame)
    used = bottom - top, right - left
    lengths = wire
    if aspect is not Aspect.STRETCH:
        height = used[0] * pixel_aspect
        ratios = wire[0] / height, wire[1] / used[1]
        scale = min(ratios) if aspect is Aspect.PAD else max(ratios)
        lengths = max(1, int(height * scale + 0.5)), max(1, int(used[1] * scale + 0.5))
    return Placement(
        rows=span(frame[0], top, used[0], wire[0], lengths[0]),
        columns=span(frame[1], left, used[1], wire[1], lengths[1]),
    )


def placement_of(frame: tuple[int, int], described: ImageInput, pixel_aspect: float | None = None) -> Placement:
    """Where a frame comes to lie on a model's wire.

    Args:
        frame: Rows and columns of the frame.
        described: The contract's input block.
        pixel_aspect: Height of a pixel through its width; None, where the file does
            not say it, means square (PS3.3 C.7.6.3.1.7).

    Raises:
        OutOfScopeError: The model's crop leaves no pixel.
        DecodeError: The contract asks for the pixels' shape, and no pixels can have it.
    """
    box = crop_box(frame[0], frame[1], described.crop)
    shape = 1.0
    if described.resize.pixels is PixelAspect.SQUARE and pixel_aspect is not None:
        if not 1 / _LARGEST_PIXEL_ASPECT <= pixel_aspect <= _LARGEST_PIXEL_ASPECT:
            msg = "PixelSpacing, or what stands for it, breaks the standard or gives pixels of an impossible shape"
            raise DecodeError(msg)
        shape = pixel_aspect
    wire = described.rows, described.columns
    return place(frame, wire, described.resize.aspect, box, pixel_aspect=shape)


def span(source: int, start: int, used: int, wire: int, length: int) -> Span:
    """An axis whose pixels, stretched to a length, lie in the middle of the wire's."""
    offset = math.trunc((wire - length) / 2)  # an odd pixel is left, or cut, at the end
    return Span(source=source, start=start, used=used, wire=wire, offset=offset, length=length)


def to_source_grid(label_map: NDArray[Pixels], placement: Placement) -> NDArray[Pixels]:
    """Bring a label map back to the source's own grid: the nearest wire pixel's label.

    Each pixel of the source takes the label of the wire pixel that its centre
    lies in. Pixels that the model did not see are 0.

    Args:
        label_map: ``(rows, columns)`` of the wire, of a volume ``(slices, rows, columns)``, any dtype.
        placement: How the source was brought to the wire.

    Returns:
        The same axes of the source, same dtype.
    """
    on_source = np.zeros([axis.source for axis in placement.spans], dtype=label_map.dtype)
    seen, taken = zip(*map(_wire_pixels, placement.spans), strict=True)
    on_source[seen] = label_map[np.ix_(*taken)]
    return on_source


def interpolate_to_source_grid(
    values: NDArray[np.floating[Any]],
    placement: Placement,
    region: tuple[float, float, float, float] | None = None,
) -> NDArray[np.float32]:
    """Bring a map of values, such as an evidence map, back to the frame's own grid, bilinearly.

    Beyond the outermost centres of the map the value stays. Pixels that the
    model did not see are 0.

    Args:
        values: A map of any size ``(rows, columns)``.
        placement: How the frame was brought to the wire.
        region: Top, left, bottom and right of the part of the wire that the map
            covers evenly, in pixels; None is the whole.

    Returns:
        ``(rows, columns)`` of the frame, float32.
    """
    on_source = np.zeros((placement.rows.source, placement.columns.source), dtype=np.float32)
    top, left, bottom, right = region or (0, 0, placement.rows.wire, placement.columns.wire)
    rows, row_places = _map_places(placement.rows, values.shape[0], top, bottom)
    columns, column_places = _map_places(placement.columns, values.shape[1], left, right)
    halfway = _interpolate_rows(values.astype(np.float32, copy=False), row_places)
    on_source[rows, columns] = _interpolate_rows(halfway.T, column_places).T
    return on_source


def _seen(span: Span) -> tuple[slice, NDArray[np.int64]]:
    """The pixels of the frame whose centre lies on the wire, and twice ``used`` times that place on the wire."""
    # In integers, so that no rounding moves a centre that lies on the border of two wire pixels.
    double = (2 * np.arange(span.used, dtype=np.int64) + 1) * span.length + 2 * span.used * span.offset
    first, end = np.searchsorted(double, (0, 2 * span.used * span.wire))
    return slice(span.start + int(first), span.start + int(end)), double[first:end]


def _wire_pixels(span: Span) -> tuple[slice, NDArray[np.int64]]:
    """The pixels of the frame that the model saw, and the wire pixel that each one's centre lies in."""
    seen, double = _seen(span)
    return seen, double // (2 * span.used)


def _map_places(span: Span, length: int, start: float, end: float) -> tuple[slice, NDArray[np.float64]]:
    """The pixels of the frame that the model saw, and where on a map's axis, counted in its centres, each one lies."""
    seen, double = _seen(span)
    on_wire = double / (2 * span.used)
    return seen, np.clip((on_wire - start) * (length / (end - start)) - 0.5, 0, length - 1)


def _interpolate_rows(values: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    before = places.astype(np.intp)
    after = np.minimum(before + 1, len(values) - 1)
    share = (places - before).astype(np.float32)[:, np.newaxis]
    between: NDArray[np.float32] = values[before] * (1 - share) + values[after] * share
    return between
