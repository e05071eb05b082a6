"""Series through a real Triton: files, SDK, exporter, server, and back on the files' own grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from support.classifiers import image_contract, write_classifier
from support.exports import export_network
from support.outlines import LEVELS
from support.segmenters import pixel_network, segmentation_spec
from support.series import enhanced, stack

from radserve import Classification, Client, InconsistentSeriesError, Rejection, Segmentation
from radserve.contracts import Combination, EveryImage, ImageInput
from radserve_export.check import check_repository
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLICES = 10
VOLUME = {"mode": "volume", "slices": SLICES}
SPACED = {"mode": "volume", "slices": SLICES, "spacing_mm": [4, 1, 1]}
IMAGES = {"mode": "every_image"}
STUDIES: dict[str, Any] = {"volume": VOLUME, "spaced": SPACED, "every_image": IMAGES}

# An organ with a lesion in it, in the lower half of 12 slices: unlike its mirror images and its turns.
DRAWN = np.zeros((12, 40, 50), np.uint8)
DRAWN[2:8, 10:30, 10:40] = 1
DRAWN[3:6, 12:22, 14:24] = 2


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Segmentations of volumes and of every image, made by the exporter; classifiers of every image."""
    folder = tmp_path_factory.mktemp("study")
    plain = segmentation_spec()
    for name, study in STUDIES.items():
        network = pixel_network(slices=SLICES if study["mode"] == "volume" else None)
        spec = segmentation_spec(name=name, input=plain["input"] | {"study": study})
        export_network(folder, network, spec)
    assert check_repository(folder / "models") == []
    for combination in Combination:
        brightness = image_contract()
        assert isinstance(brightness.input, ImageInput)
        described = msgspec.structs.replace(brightness.input, study=EveryImage(combination=combination))
        write_classifier(
            folder / "models", msgspec.structs.replace(brightness, name=combination.value, input=described)
        )
    return folder / "models"


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[Client]:
    with EmbeddedServer(repository, verify=False) as server, Client(server.grpc_url) as client:
        yield client


@pytest.fixture
def series() -> list[Any]:
    return stack(np.array(LEVELS)[DRAWN], spacing_mm=(4, 1, 1))


@pytest.mark.parametrize("name", STUDIES)
def test_a_label_map_comes_back_on_the_series_own_grid(client: Client, series: list[Any], name: str) -> None:
    result = client.model(name, Segmentation).predict(series[::-1])
    assert result.label_map.shape == DRAWN.shape
    seen = slice(1, 11) if name == "spaced" else slice(None)  # ten slices of the twelve, as far apart
    have, want = result.label_map[seen], DRAWN[seen]
    for value in (1, 2):
        moved = np.abs(np.argwhere(have == value).mean(axis=0) - np.argwhere(want == value).mean(axis=0))
        assert (moved <= (0.7, 1.4, 1.3)).all()
    assert 2 * ((have > 0) & (want > 0)).sum() / ((have > 0).sum() + (want > 0).sum()) > 0.85
    assert result.geometry is not None
    assert result.geometry.position_mm == (-10, -20, 30)
    assert result.geometry.slice_spacing_mm == pytest.approx(4)
    assert len(result.provenance.sop_instance_uids) == 12


def test_an_enhanced_file_answers_as_its_slices_do(client: Client, series: list[Any]) -> None:
    model = client.model("volume", Segmentation)
    np.testing.assert_array_equal(model.predict(enhanced(series)).label_map, model.predict(series).label_map)


def test_a_folder_answers_as_its_files_do(client: Client, series: list[Any], tmp_path: Path) -> None:
    for number, one in enumerate(series):
        one.save_as(tmp_path / f"{11 - number}.dcm", enforce_file_format=True)
    model = client.model("every_image", Segmentation)
    np.testing.assert_array_equal(model.predict(tmp_path).label_map, model.predict(series).label_map)


@pytest.mark.parametrize("combination", Combination)
def test_a_study_larger_than_a_batch_is_combined(client: Client, combination: Combination) -> None:
    levels = np.array([40, 60, 80, 100, 90, 70, 50, 30, 20, 200])
    values = np.repeat(levels, 64).reshape(10, 8, 8)
    values[:, ::2] += 2
    result = client.model(combination.value, Classification).predict(stack(values))
    alone = [image.findings for image in result.images]
    bright = np.array([next(f.probability for f in findings if f.label == "bright") for findings in alone])
    assert len(bright) == 10  # more than the 8 of one batch
    assert bright.argmax() == 9
    expected = {"maximum": bright.max(), "mean": bright.mean(), "noisy_or": 1 - np.prod(1 - bright)}
    found = next(finding for finding in result.findings if finding.label == "bright")
    assert found.probability == pytest.approx(expected[combination.value], abs=1e-6)


def test_a_study_with_a_gap_is_a_rejection_of_its_own(client: Client, series: list[Any]) -> None:
    model = client.model("every_image", Segmentation)
    whole, gap, again = model.predict_many([series, series[:4] + series[5:], series])
    assert isinstance(whole, Segmentation)
    assert isinstance(again, Segmentation)
    assert isinstance(gap, Rejection)
    assert isinstance(gap.error, InconsistentSeriesError)
