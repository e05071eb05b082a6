"""Evidence maps: from the wire back to the source image, without a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from support.datasets import make
from support.sdk_contracts import contract as small_contract

from radserve import Classification, _codec
from radserve.contracts import (
    Aspect,
    Combination,
    Contract,
    EveryImage,
    Evidence,
    FixedWindow,
    ImageInput,
    Policy,
    Resize,
    Task,
    dump_contract,
    parse_contract,
    wire_tensors,
)
from radserve.errors import ContractError, InferenceFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROWS, COLUMNS = 12, 8
SOURCE = np.arange(ROWS * COLUMNS * 100, dtype=np.float32).reshape(
    ROWS * 10, COLUMNS * 10
)  # ten of its pixels to one of the wire, each way


def contract(
    evidence: Evidence | None, aspect: Aspect = Aspect.STRETCH, study: EveryImage | None = None, names: str = "ab"
) -> Contract:
    described = ImageInput(
        modalities=("DX",),
        rows=ROWS,
        columns=COLUMNS,
        window=FixedWindow(center=100, width=200),
        resize=Resize(aspect=aspect),
        absent_attributes=Policy.ACCEPT,
        study=study,
    )
    _, outputs = wire_tensors(Task.IMAGE_CLASSIFICATION, described, len(names), evidence)
    return small_contract(described, names=names, evidence=evidence, outputs=outputs, max_batch_size=2)


def answered(described: Contract, values: NDArray[Any] | None, source: NDArray[Any] = SOURCE) -> Classification:
    arrays: dict[str, NDArray[Any]] = {
        "PROBABILITIES": np.array([[0.2, 0.8]], np.float32),
        "DECISIONS": np.array([[0, 2]], np.int8),
    }
    if values is not None:
        arrays["EVIDENCE"] = values[np.newaxis].astype(np.float32)
    result = _codec.to_result(
        described, _codec.prepare(described, source), _codec.Answer(arrays=arrays, request_id="r")
    )
    assert isinstance(result, Classification)
    return result


def one(rows: int, columns: int, row: int, column: int) -> NDArray[np.float32]:
    values = np.zeros((rows, columns), np.float32)
    values[row, column] = 1
    return values


def centre(values: NDArray[np.float32]) -> tuple[float, float]:
    """Centre of gravity, in pixels of the wire."""
    rows, columns = np.indices(values.shape) + 0.5
    return float((rows * values).sum() / values.sum() / 10), float((columns * values).sum() / values.sum() / 10)


def test_a_model_without_a_map_gives_none() -> None:
    assert answered(contract(None), None).evidence is None


def test_the_map_lies_on_the_sources_grid_and_speaks_for_the_most_probable_label() -> None:
    result = answered(contract(Evidence(rows=4, columns=4, layer="last")), one(4, 4, 1, 2))
    assert result.evidence is not None
    assert result.evidence.label == result.top.label == "b"
    assert result.evidence.values.shape == SOURCE.shape
    assert result.evidence.values.dtype == np.float32
    assert not result.evidence.values.flags.writeable
    assert 0.9 < result.evidence.values.max() <= 1
    assert centre(result.evidence.values) == pytest.approx((1.5 * ROWS / 4, 2.5 * COLUMNS / 4))


@pytest.mark.parametrize("cell", [(0, 0), (0, 3), (2, 1), (3, 0), (3, 3)])
def test_the_cells_lie_in_the_region_that_the_contract_names(cell: tuple[int, int]) -> None:
    """Also at the border there is one largest value, in the middle of its cell."""
    region = (2.0, 1.0, 10.0, 7.0)
    described = contract(Evidence(rows=4, columns=4, layer="last", region=region))
    result = answered(described, one(4, 4, *cell))
    assert result.evidence is not None
    values = result.evidence.values
    middle = 10 * (2 + 2 * (cell[0] + 0.5)), 10 * (1 + 1.5 * (cell[1] + 0.5))
    largest = np.argwhere(values == values.max())
    assert np.abs(largest + 0.5 - middle).max() <= 1


def test_what_was_padded_on_the_wire_is_left_out() -> None:
    wide = SOURCE[:40, :80]  # four of the wire's twelve rows
    result = answered(contract(Evidence(rows=12, columns=8, layer="last"), Aspect.PAD), one(12, 8, 5, 3), wide)
    assert result.evidence is not None
    assert result.evidence.values.shape == wide.shape
    assert centre(result.evidence.values) == pytest.approx((1.5, 3.5))


def test_an_empty_map_stays_empty() -> None:
    result = answered(contract(Evidence(rows=4, columns=4, layer="last")), np.zeros((4, 4)))
    assert result.evidence is not None
    assert not result.evidence.values.any()


@pytest.mark.parametrize("wrong", [-0.01, 1.01])
def test_a_value_outside_0_to_1_is_not_believed(wrong: float) -> None:
    with pytest.raises(InferenceFailedError, match="evidence map"):
        answered(contract(Evidence(rows=4, columns=4, layer="last")), np.full((4, 4), wrong))


@pytest.mark.parametrize(
    ("cells", "place", "shown"),
    [
        (one(4, 4, 1, 2), {"row": 44, "column": 49}, "0.000 to 0.9"),
        (np.zeros((4, 4), np.float32), None, "0.000 to 0.000"),
    ],
)
def test_json_says_where_the_maximum_lies_and_leaves_the_map_out(
    cells: NDArray[np.float32], place: dict[str, int] | None, shown: str
) -> None:
    result = answered(contract(Evidence(rows=4, columns=4, layer="last")), cells)
    expected = {"label": "b", "rows": 120, "columns": 80, "maximum": place, "image": None}
    assert json.loads(result.to_json())["evidence"] == expected
    assert repr(result.evidence).startswith(f"<EvidenceMap of b: 120 x 80, {shown}")


def of_study(source: Any, rows: Sequence[tuple[float, ...]], maps: Any, **study: Any) -> Classification:
    """What is made of answers to all images of a study, which take several requests."""
    described = contract(
        Evidence(rows=4, columns=4, layer="last"), study=EveryImage(**study), names="abc"[: len(rows[0])]
    )
    prepared = _codec.prepare(described, source)
    answers = [
        _codec.Answer(
            arrays={
                "PROBABILITIES": np.array(some, np.float32),
                "DECISIONS": np.where(np.array(some) >= 0.5, 2, 0).astype(np.int8),
                "EVIDENCE": np.array(maps[first : first + 2], np.float32),
            },
            request_id="r",
        )
        for first in range(0, len(rows), 2)
        for some in [rows[first : first + 2]]
    ]
    result = _codec.combine(described, prepared, answers)
    assert isinstance(result, Classification)
    return result


MAPS = [one(4, 4, row, row) for row in (0, 1, 2)]


@pytest.mark.parametrize(
    ("rows", "combination", "explained"),
    [
        ([(0.2, 0.3), (0.1, 0.8), (0.3, 0.6)], Combination.MAXIMUM, 1),
        ([(0.2, 0.3), (0.1, 0.6), (0.3, 0.8)], Combination.MEAN, 2),
        # The image that is surest of b is surer of a, and its map is of a.
        ([(0.95, 0.9), (0.0, 0.3), (0.3, 0.6)], Combination.MEAN, 2),
        ([(0.5, 0.4), (0.0, 0.0), (0.1, 0.0)], Combination.NOISY_OR, 0),
    ],
)
def test_the_map_of_a_study_is_that_of_the_image_that_speaks_most_for_its_label(
    rows: list[tuple[float, ...]], combination: Combination, explained: int
) -> None:
    result = of_study(np.stack([SOURCE] * 3), rows, MAPS, combination=combination)
    assert result.evidence is not None
    assert (result.evidence.label, result.evidence.image) == (result.top.label, explained)
    assert result.images[explained].findings[0].label == result.top.label
    assert centre(result.evidence.values) == pytest.approx(
        (ROWS / 4 * (explained + 0.5), COLUMNS / 4 * (explained + 0.5)), abs=0.6
    )
    assert json.loads(result.to_json())["evidence"]["image"] == explained
    assert f"image {explained + 1} of 3" in result._repr_html_()


def test_where_no_image_shows_the_studys_label_best_there_is_no_map() -> None:
    rows = [(0.6, 0.5, 0.0), (0.0, 0.5, 0.6)]
    result = of_study(np.stack([SOURCE] * 2), rows, MAPS[:2], combination=Combination.MEAN)
    assert result.top.label == "b"
    assert result.evidence is None
    assert "evidence" not in result.to_dict()


def test_the_map_of_a_study_is_of_its_images_own_size() -> None:
    views = [
        make(Rows=rows, Columns=40, PixelData=np.arange(rows * 40, dtype="<u2").tobytes(), SeriesInstanceUID="1.1",
             SOPInstanceUID=f"1.1.{rows}", InstanceNumber=rows, Modality="DX")
        for rows in (24, 60)
    ]  # fmt: skip
    result = of_study(views, [(0.1, 0.2), (0.1, 0.9)], MAPS[:2])
    assert result.evidence is not None
    assert result.evidence.values.shape == (60, 40)
    assert result.images[1].sop_instance_uid == "1.1.60"


def test_a_value_outside_0_to_1_is_not_believed_in_any_image() -> None:
    with pytest.raises(InferenceFailedError, match="evidence map"):
        of_study(np.stack([SOURCE] * 2), [(0.1, 0.9), (0.1, 0.2)], [MAPS[0], MAPS[1] * 2])


def test_one_image_of_a_study_has_its_map() -> None:
    result = of_study(SOURCE, [(0.1, 0.9)], MAPS[:1])
    assert result.evidence is not None
    assert result.evidence.image == 0


def test_json_of_a_model_without_a_map_says_nothing_of_one() -> None:
    assert "evidence" not in json.loads(answered(contract(None), None).to_json())


@pytest.mark.parametrize(
    "region", [(5.0, 0.0, 5.0, 8.0), (0.0, 8.0, 12.0, 0.0), (0.0, 0.0, 1e9, 8.0), (0.0, 0.0, 12.0)]
)
def test_a_region_that_is_none_is_refused(region: tuple[float, ...]) -> None:
    good = dump_contract(contract(Evidence(rows=4, columns=4, layer="last", region=(0.0, 0.0, 12.0, 8.0))))
    assert parse_contract(good).evidence is not None
    bad = msgspec.json.decode(good)
    bad["evidence"]["region"] = region
    with pytest.raises(ContractError):
        parse_contract(msgspec.json.encode(bad))
