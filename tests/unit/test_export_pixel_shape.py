"""Pixels that are not square: training and evaluation place label maps where the SDK places their images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from support.answers import content
from support.outlines import COLUMNS, LEVELS, ROWS, picture, truth
from support.sdk_contracts import contract

from radserve import _codec
from radserve.contracts import LABEL_MAP, Aspect, FixedWindow, ImageInput, PixelAspect, Policy, Resize, Task
from radserve_export.evaluate._segmentation import measure_skew
from radserve_export.from_keras.training import _generated, ct_lesion
from radserve_export.synthetic import Sample, Split

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from numpy.typing import NDArray

INPUT = ImageInput(
    modalities=("CT",),
    rows=ROWS,
    columns=COLUMNS,
    window=FixedWindow(center=100.5, width=201),
    resize=Resize(aspect=Aspect.PAD, pixels=PixelAspect.SQUARE),
    absent_attributes=Policy.ACCEPT,
)


def sample() -> Sample:
    """Twice as high as its rows are many."""
    drawn = truth(48, 96)
    return Sample(source=content(picture(drawn, PixelSpacing=[2, 1])), label="chest", truth=drawn)


def shown(wire: NDArray[Any]) -> NDArray[np.uint8]:
    """The label map that a perfect model reads off an image."""
    levels: NDArray[np.uint8] = np.rint(wire[..., 0] / 255 * LEVELS[-1] / LEVELS[1]).astype(np.uint8)
    return levels


def test_trained_label_maps_lie_on_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(*_: object, **__: object) -> Iterator[Sample]:
        yield sample()

    monkeypatch.setattr(ct_lesion, "generate", one)
    images, maps = ct_lesion.wire_samples(1, INPUT, seed=1, split=Split.TEST, progress=lambda *_: None)
    assert (shown(images) == maps).mean() > 0.96


def test_places_to_look_at_lie_on_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_generated._IMAGES, "chest_xray", lambda *_, **__: sample())
    (image,), _, (place,) = _generated._chunk("chest_xray", range(1), INPUT, 1, Split.TEST)
    assert ((shown(np.asarray(image)) > 0) == (place > 0.5)).mean() > 0.96


def test_a_perfect_service_shows_no_skew() -> None:
    described = contract(INPUT, task=Task.IMAGE_SEGMENTATION)
    given = sample()
    assert isinstance(given.source, bytes)
    prepared = _codec.prepare(described, given.source)
    answer = {LABEL_MAP: shown(prepared.inputs["PIXELS"])}
    result = _codec.to_result(described, prepared, _codec.Answer(arrays=answer, request_id="r"))
    model: Any = SimpleNamespace(contract=described, name="demo", prepare=lambda _: prepared.inputs)
    reference: Any = lambda _: answer  # noqa: E731 - stands in for a class
    assert measure_skew(model, [given], [result], reference) == {"n": 1, "max": 0}  # type: ignore[list-item]  # a segmentation
