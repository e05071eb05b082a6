"""The second public model: exported with the first, served beside it, both or none."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
import yaml
from support.keras_models import chest, keras, layers, write_family

from radserve import AsyncClient, Classification, Client
from radserve.errors import ConversionError, RepositoryError
from radserve_export import pipeline
from radserve_export.check import check_repository
from radserve_export.from_keras.convert import convert
from radserve_export.network import Conversion, Form
from radserve_export.publication import publish
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

    from radserve.contracts.manifest import Manifest
    from radserve_export.network import Network
    from radserve_server import EmbeddedServer


def write_spec(folder: Path, *, fuse: bool = True, **changed: Any) -> Path:
    path = write_family(folder, "chest", fuse=fuse)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"evidence": True} | changed))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence")
    for fuse in (True, False):
        pipeline.export(write_spec(folder, fuse=fuse), folder / "models")
    return folder / "models"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture(scope="module")
def network() -> Network:
    return convert(chest(), Conversion(form=Form.EVIDENCE), source_sha256="0" * 64)


@pytest.fixture
def converted_before(network: Network, use_network: Callable[[Network], None]) -> None:
    """What is published is the same each time: no need to convert it anew."""
    use_network(network)


def served_names(repository: Path) -> set[str]:
    return {path.parent.name for path in repository.glob("*/config.pbtxt")}


def test_the_repository_has_both_models_and_nothing_wrong(models: Path) -> None:
    assert served_names(models) == {
        *("chest_fused", "chest_fused_pipeline", "chest_fused_evidence", "chest_fused_evidence_pipeline"),
        *("chest_unfused", "chest_unfused_evidence"),
        *(f"chest_unfused_{step}" for step in ("preprocess", "network", "postprocess")),
        *(f"chest_unfused_evidence_{step}" for step in ("preprocess", "network")),
    }
    assert check_repository(models) == []


def test_both_answer_alike_and_one_shows_where_it_looked(
    models: Path, start_server: Callable[..., EmbeddedServer]
) -> None:
    sources = [sample.source for sample in generate("chest_xray", 6, seed=8, split=Split.TEST)]
    maps = []
    with Client(start_server(models).grpc_url) as client:
        for name in ("chest_fused", "chest_unfused"):
            plain = [client.model(name, Classification).predict(source) for source in sources]
            shown = [client.model(f"{name}_evidence", Classification).predict(source) for source in sources]
            for one, other in zip(plain, shown, strict=True):
                assert one.evidence is None
                assert other.evidence is not None
                assert other.evidence.label == other.top.label
                assert [finding.label for finding in one.findings] == [finding.label for finding in other.findings]
                np.testing.assert_allclose(
                    [finding.probability for finding in one.findings],
                    [finding.probability for finding in other.findings],
                    atol=1e-6,
                )
            maps.append([result.evidence.values for result in shown if result.evidence is not None])
    for fused, unfused in zip(*maps, strict=True):
        assert fused.ndim == 2
        assert fused.max() > 0
        np.testing.assert_allclose(fused, unfused, atol=1e-5)


def one_series(count: int) -> list[Dataset]:
    """Radiographs of one series."""
    samples = (sample.source for sample in generate("chest_xray", 4 * count, seed=8, split=Split.TEST))
    read: Iterator[Dataset] = (pydicom.dcmread(BytesIO(source)) for source in samples if isinstance(source, bytes))
    files = [file for file in read if file.PhotometricInterpretation == "MONOCHROME2"][:count]
    for number, file in enumerate(files, start=1):
        file.PatientID, file.StudyInstanceUID, file.SeriesInstanceUID = "one", "2.25.1", "2.25.2"
        file.InstanceNumber = number
    return files


@pytest.mark.usefixtures("converted_before")
def test_a_study_is_explained_by_the_map_of_one_of_its_images(
    tmp_path: Path, repository: Path, start_server: Callable[..., EmbeddedServer]
) -> None:
    spec = write_spec(tmp_path)
    pipeline.export(spec, repository)
    told = yaml.safe_load(spec.read_text())
    study = told["input"] | {"study": {"mode": "every_image", "combination": "mean"}}
    spec.write_text(yaml.safe_dump(told | {"name": "study", "input": study, "serving": {"max_batch_size": 2}}))
    pipeline.export(spec, repository)
    assert check_repository(repository) == []
    files, url = one_series(5), start_server(repository).grpc_url

    async def asked() -> Classification:
        async with AsyncClient(url) as client:
            return await (await client.model("study_evidence", Classification)).predict(files)

    with Client(url) as client:
        result = client.model("study_evidence", Classification).predict(files)
        assert result.evidence is not None
        assert result.evidence.image is not None
        assert result.evidence.label == result.top.label
        image = files[result.evidence.image]
        assert result.images[result.evidence.image].sop_instance_uid == image.SOPInstanceUID
        alone = client.model("chest_fused_evidence", Classification).predict(image)
    for other in (alone, asyncio.run(asked())):
        assert other.evidence is not None
        assert other.evidence.label == result.top.label
        np.testing.assert_allclose(other.evidence.values, result.evidence.values, atol=1e-5)
    drawn, plain = (each.to_secondary_capture(image).pixel_array for each in (result, replace(result, evidence=None)))
    assert (drawn[-image.Rows :] != plain[-image.Rows :]).any()


@pytest.mark.usefixtures("converted_before")
def test_another_export_of_the_same_changes_neither(tmp_path: Path, repository: Path) -> None:
    spec = write_spec(tmp_path)
    first, second = pipeline.export(spec, repository), pipeline.export(spec, repository)
    assert first.is_new
    assert first.evidence is not None
    assert first.evidence.is_new
    assert second.evidence is not None
    assert (second.version, second.is_new, second.evidence.version, second.evidence.is_new) == (1, False, 1, False)


@pytest.mark.usefixtures("converted_before")
def test_evidence_asked_for_later_leaves_the_plain_model_as_it_is(tmp_path: Path, repository: Path) -> None:
    pipeline.export(write_spec(tmp_path, evidence=False), repository)
    done = pipeline.export(write_spec(tmp_path), repository)
    assert not done.is_new
    assert done.evidence is not None
    assert (done.evidence.name, done.evidence.version, done.evidence.is_new) == ("chest_fused_evidence", 2, True)


@pytest.mark.usefixtures("converted_before")
def test_if_the_second_cannot_be_published_the_first_is_taken_back(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(tmp_path)
    seen: list[set[str]] = []

    def fail_on_the_plain_one(staged: Path, target: Path, manifest: Manifest) -> None:
        if manifest.name == "chest_fused":
            seen.append(served_names(target))
            msg = "the disk is full"
            raise RepositoryError(msg)
        publish(staged, target, manifest)

    monkeypatch.setattr(pipeline, "publish", fail_on_the_plain_one)
    with pytest.raises(RepositoryError, match="disk is full"):
        pipeline.export(spec, repository)
    assert seen == [{"chest_fused_evidence", "chest_fused_evidence_pipeline"}], "it was published, and taken back"
    assert not repository.exists()


@pytest.mark.usefixtures("converted_before")
def test_if_the_second_cannot_be_published_older_versions_stay(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.export(write_spec(tmp_path), repository)
    before = {path: path.read_bytes() for path in sorted(repository.rglob("*")) if path.is_file()}

    def fail_on_the_plain_one(staged: Path, target: Path, manifest: Manifest) -> None:
        if manifest.name == "chest_fused":
            raise KeyboardInterrupt
        publish(staged, target, manifest)

    monkeypatch.setattr(pipeline, "publish", fail_on_the_plain_one)
    with pytest.raises(KeyboardInterrupt):
        pipeline.export(write_spec(tmp_path, description="Another"), repository)
    assert {path: path.read_bytes() for path in sorted(repository.rglob("*")) if path.is_file()} == before


def test_a_model_without_convolution_publishes_nothing(tmp_path: Path, repository: Path) -> None:
    spec = write_spec(tmp_path)
    dense = [layers.Input((28, 28, 1)), layers.Flatten(), layers.Dense(3, activation="softmax")]
    keras.Sequential(dense).save(tmp_path / "chest.keras")
    with pytest.raises(ConversionError, match="no two-dimensional convolution"):
        pipeline.export(spec, repository)
    assert not repository.exists()
