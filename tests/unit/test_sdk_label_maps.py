"""Where the command writes label maps, and how areas are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from radserve.cli._label_maps import picture_paths, write_picture
from radserve.cli._show import extent
from radserve.contracts import Code
from radserve.errors import InputError
from radserve.results import Region

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["study/slice.dcm"], ["slice.png"]),
        (["IM0001", "IM.0002"], ["IM0001.png", "IM.0002.png"]),
        (["1.2.840.99.dcm", "1.2.840.99.7"], ["1.2.840.99.png", "1.2.840.99.7.png"]),
        (["a/x.dcm", "b/x.dcm", "c/X.DCM"], ["x.png", "x_2.png", "X_3.png"]),
        (["x.dcm", "x_2.dcm", "b/x.dcm"], ["x.png", "x_2.png", "x_3.png"]),
        (["-"], ["stdin.png"]),
        (["王^小东.dcm", "../.hidden"], ["王^小东.png", ".hidden.png"]),
    ],
)
def test_pictures_are_named_after_their_inputs(tmp_path: Path, inputs: list[str], names: list[str]) -> None:
    assert picture_paths(inputs, tmp_path / "new" / "maps", force=False) == [tmp_path / "new/maps" / n for n in names]


def test_a_picture_that_is_there_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "b.png").touch()
    with pytest.raises(InputError, match=r"b\.png is there already: .* --force"):
        picture_paths(["a.dcm", "b.dcm"], tmp_path, force=False)
    assert len(picture_paths(["a.dcm", "b.dcm"], tmp_path, force=True)) == 2


def test_a_picture_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"another's")
    with pytest.raises(InputError, match="is there already"):
        write_picture(np.zeros((2, 3), np.uint8), path, force=False)
    assert path.read_bytes() == b"another's"
    write_picture(np.full((2, 3), 2, np.uint8), path, force=True)
    with Image.open(path) as picture:
        assert np.asarray(picture).tolist() == [[2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("area", "told", "shown"),
    [
        (None, None, "5 pixels"),
        (0.0, 0.0, "5 pixels (0 mm²)"),
        (3.4332275390625e-05, 3.43323e-05, "5 pixels (3.43e-05 mm²)"),
        (0.30000000000000004, 0.3, "5 pixels (0.3 mm²)"),
        (12.3456789, 12.3457, "5 pixels (12.3 mm²)"),
        (99.7, 99.7, "5 pixels (100 mm²)"),
        (12345.678, 12345.7, "5 pixels (12346 mm²)"),
    ],
)
def test_areas_are_rounded_by_digits_never_to_nothing(area: float | None, told: float | None, shown: str) -> None:
    code = Code(value="1", scheme="99TEST", meaning="lesion")
    region = Region(label="lesion", value=1, is_positive=True, pixel_count=5, area_mm2=area, code=code)
    assert region.area_mm2 == area
    assert region.to_dict()["area_mm2"] == told
    assert extent(region) == f"lesion: {shown}"


def test_an_interrupted_picture_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("radserve.cli._label_maps.write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_picture(np.zeros((2, 3), np.uint8), tmp_path / "a.png", force=False)
    assert list(tmp_path.iterdir()) == []
