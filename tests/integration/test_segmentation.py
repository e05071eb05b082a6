"""Label maps through a real Triton: file, SDK, server, and back on the file's own grid."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image
from support.exports import export_network, label
from support.outlines import COLUMNS, ROWS, picture, truth
from support.segmenters import pixel_network, segmentation_spec

from radserve import Client, Rejection, Segmentation
from radserve.cli import main
from radserve.contracts import LABEL_MAP, PIXELS
from radserve.errors import OutOfScopeError
from radserve_export.check import check_repository
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

CROP = {"top": 0.2, "left": 0.05, "right": 0.15}
MODELS: dict[str, dict[str, Any]] = {
    "stretched": {"resize": {"aspect": "stretch"}},
    "padded": {"resize": {"aspect": "pad"}},
    "cropped": {"resize": {"aspect": "crop"}},
    "cut_and_padded": {"resize": {"aspect": "pad"}, "crop": CROP},
    "deep": {"wire_dtype": "UINT16"},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network behind several kinds of preprocessing, and one of a single label in three steps."""
    folder = tmp_path_factory.mktemp("segmentation")
    plain = segmentation_spec()
    specs = {
        name: segmentation_spec(
            name=name,
            input=plain["input"] | changes,
            network_input={"scale": 1 / (65535 if "wire_dtype" in changes else 255)},
        )
        for name, changes in MODELS.items()
    }
    single = {"exclusive": None, "labels": [label("organ")], "serving": {"fuse": False}}
    specs["single"] = segmentation_spec(name="single", **single)
    for name, spec in specs.items():
        export_network(folder, pixel_network(1 if name == "single" else 3), spec)
    return folder / "models"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(repository) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.grpc_url) as client:
        yield client


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("shape", [(72, 55), (60, 97), (ROWS, COLUMNS), (20, 30)])
@pytest.mark.parametrize("name", MODELS)
def test_an_asymmetric_marker_comes_back_where_it_was(client: Client, name: str, shape: tuple[int, int]) -> None:
    drawn = truth(*shape)
    result = client.model(name, Segmentation).predict(picture(drawn, PixelSpacing=[1, 1]))
    assert result.label_map.shape == shape
    scale = max(1, shape[0] / ROWS, shape[1] / COLUMNS)
    for value in (1, 2):
        found, expected = result.label_map == value, drawn == value
        moved = np.abs(np.argwhere(found).mean(axis=0) - np.argwhere(expected).mean(axis=0))
        assert moved.max() <= 0.5 * scale + 0.5
    assert dice(result.label_map > 0, drawn > 0) > 0.85
    assert [region.area_mm2 for region in result.findings] == [(result.label_map == value).sum() for value in (1, 2)]


def test_a_single_label_in_three_steps_answers_alike(client: Client) -> None:
    drawn = truth(ROWS, COLUMNS)
    result = client.model("single", Segmentation).predict(picture(drawn))
    np.testing.assert_array_equal(result.label_map, drawn > 0)
    assert [region.label for region in result.findings] == ["organ"]


def test_many_are_answered_in_order_and_one_refused_stops_none(client: Client) -> None:
    pictures = [truth(40, 50), np.zeros((30, 30), np.uint8), truth(61, 47)]
    sources = [
        picture(pictures[0]),
        picture(pictures[1], faint=10),
        picture(pictures[2], Modality="MR"),
        picture(pictures[2]),
    ]
    one, two, refused, three = client.model("padded", Segmentation).predict_many(sources)
    for result, drawn in ((one, pictures[0]), (two, pictures[1]), (three, pictures[2])):
        assert isinstance(result, Segmentation)
        assert result.label_map.shape == drawn.shape
        assert result.label_map.any() == drawn.any()
    assert isinstance(refused, Rejection)
    assert isinstance(refused.error, OutOfScopeError)


def test_the_wire_carries_one_byte_a_pixel_and_no_label_file(server: EmbeddedServer, repository: Path) -> None:
    assert check_repository(repository) == []
    assert not list(repository.rglob("labels.txt"))
    wire = np.zeros((2, ROWS, COLUMNS, 1), np.uint8)
    with triton.InferenceServerClient(server.grpc_url) as raw:
        given = triton.InferInput(PIXELS, list(wire.shape), "UINT8")
        given.set_data_from_numpy(wire)
        (content,) = raw.infer("padded", [given], client_timeout=30).get_response().raw_output_contents
        (output,) = raw.get_model_metadata("padded").outputs
    assert len(content) == 2 * ROWS * COLUMNS
    assert (output.name, output.datatype, list(output.shape)) == (LABEL_MAP, "UINT8", [-1, ROWS, COLUMNS])


@pytest.mark.parametrize("json_wanted", [True, False])
def test_the_command_tells_what_was_found(
    server: EmbeddedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, json_wanted: bool
) -> None:
    path = tmp_path / "slice.dcm"
    picture(truth(48, 64), PixelSpacing=[0.5, 0.5]).save_as(path, enforce_file_format=True)
    arguments = ["predict", "stretched", str(path), "--url", server.grpc_url]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--json"] if json_wanted else arguments)
    assert not caught.value.code
    shown = capsys.readouterr().out
    if not json_wanted:
        header, *_ = (line for line in shown.splitlines() if "input" in line)
        assert [cell.strip() for cell in header.strip("┃ ").split("┃")] == [
            "input",
            "answer",
            "decision",
            "code",
            "version",
        ]
        assert "organ: " in shown
        assert "pixels" in shown
        assert "mm²" in shown
        return
    (told,) = map(json.loads, shown.splitlines())
    assert (told["input"], told["model"], told["rows"], told["columns"]) == (str(path), "stretched", 48, 64)
    assert [(found["label"], found["value"], found["is_positive"]) for found in told["findings"]] == [
        ("organ", 1, True),
        ("lesion", 2, True),
    ]
    assert all(found["area_mm2"] == found["pixel_count"] / 4 for found in told["findings"])


def test_the_command_writes_label_maps_as_pictures(
    server: EmbeddedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / name for name in ("one.dcm", "two.dcm", "more/one.DCM")]
    paths[2].parent.mkdir()
    drawn = truth(ROWS, COLUMNS)
    picture(drawn).save_as(paths[0], enforce_file_format=True)
    paths[1].write_bytes(b"no DICOM")
    picture(drawn[::-1].copy()).save_as(paths[2], enforce_file_format=True)
    folder = tmp_path / "maps"
    arguments = ["predict", "stretched", *map(str, paths), "--url", server.grpc_url, "--json"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--output", str(folder)])
    assert caught.value.code == 1
    told = [json.loads(line).get("label_map") for line in capsys.readouterr().out.splitlines()]
    assert told == [str(folder / "one.png"), None, str(folder / "one_2.png")]
    assert sorted(path.name for path in folder.iterdir()) == ["one.png", "one_2.png"]
    with Image.open(folder / "one.png") as one, Image.open(folder / "one_2.png") as three:
        np.testing.assert_array_equal(np.asarray(one), drawn)
        np.testing.assert_array_equal(np.asarray(three), drawn[::-1])
        assert not one.info
    with pytest.raises(SystemExit):
        main([*arguments, "--output", str(paths[0])])
    assert f"cannot write to {paths[0]}: File exists" in capsys.readouterr().err


def test_label_maps_are_overwritten_only_by_force(
    server: EmbeddedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(truth(ROWS, COLUMNS)).save_as(tmp_path / "one.dcm", enforce_file_format=True)
    place = tmp_path / "maps" / "one.png"
    place.parent.mkdir()
    place.write_bytes(b"drawn by hand")
    arguments = ["predict", "stretched", str(tmp_path / "one.dcm"), "--url", server.grpc_url]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--output", str(place.parent)])
    assert (caught.value.code, place.read_bytes()) == (1, b"drawn by hand")
    told = capsys.readouterr()
    assert not told.out
    assert f"{place} is there already" in told.err
    assert "--force" in told.err
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--output", str(place.parent), "--force"])
    assert not caught.value.code
    assert "label map" in (shown := capsys.readouterr().out)
    assert "one.png" in shown
    with Image.open(place) as written:
        assert written.size == (COLUMNS, ROWS)
