"""What was exported, through a real Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from support.exports import dense_network, export_network, image_spec, label, write_spec
from support.inference import infer, infer_together
from support.keras_models import FAMILIES, LEADS, MAX_TOKENS, SAMPLES, keras, layers, vary, write_family

from radserve import Client, Priority, Rejection
from radserve.errors import ExportError, InputError, OutOfScopeError
from radserve_export import pipeline
from radserve_export.check import check_repository
from radserve_export.evaluate import evaluate
from radserve_export.from_keras.load import load_model
from radserve_export.graphs.preprocess import preprocess_reference
from radserve_export.spec import load_spec
from radserve_export.tokenizer import read_tokenizer
from radserve_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

TEXTS = ("no pneumothorax", "large effusion", "未 见 气胸", "", "effusion no")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All families, fused and unfused, and a model of bare tensors."""
    folder = tmp_path_factory.mktemp("exported")
    for family in FAMILIES:
        for fuse in (True, False):
            pipeline.export(write_family(folder, family, fuse=fuse), folder / "models")
    a, b = layers.Input((4,), name="a"), layers.Input((None, 3), name="b")
    model = keras.Model([a, b], [layers.Dense(2, name="left")(a), layers.LSTM(5, name="right")(layers.Masking()(b))])
    vary(model, scale=1.5).save(folder / "raw.keras")
    (folder / "raw.yaml").write_text("name: raw\ntask: tensors\nmodel: raw.keras\n")
    pipeline.export(folder / "raw.yaml", folder / "models")
    assert check_repository(folder / "models") == []
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(folder / "models") as server:
        yield server


@pytest.fixture(scope="module")
def raw(server: EmbeddedServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as client:
        yield client


def _texts(*texts: str | bytes) -> NDArray[np.object_]:
    return np.array([[text if isinstance(text, bytes) else text.encode()] for text in texts], object)


def _wire(family: str) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    if family == "chest":
        return {"PIXELS": rng.integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)}
    if family == "ecg":
        return {"SAMPLES": rng.integers(-32768, 32767, (5, SAMPLES, len(LEADS))).astype(np.int16)}
    return {"TEXT": _texts(*TEXTS)}


def _of_keras(folder: Path, family: str) -> NDArray[Any]:
    """Keras, eagerly, on what the wire carries."""
    spec = load_spec(folder / f"{family}_fused.yaml")
    model, _ = load_model(folder / spec.model)
    (wire,) = _wire(family).values()
    if family == "report":
        fed: NDArray[Any] = read_tokenizer(folder / "tokenizer.json").token_ids(TEXTS, MAX_TOKENS)
    else:
        fed = preprocess_reference(wire, spec.network_input)
    return np.asarray(model(fed, training=False))


@pytest.mark.parametrize("form", ["fused", "unfused"])
@pytest.mark.parametrize("family", FAMILIES)
def test_triton_answers_as_keras_does(raw: triton.InferenceServerClient, folder: Path, family: str, form: str) -> None:
    answer = infer(raw, f"{family}_{form}", _wire(family))
    expected = _of_keras(folder, family)
    assert np.ptp(expected, axis=0).max() > 0.01
    np.testing.assert_allclose(answer["PROBABILITIES"], expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(answer["DECISIONS"], np.where(answer["PROBABILITIES"] >= 0.5, 2, 0))


def test_labels_travel_with_classification(raw: triton.InferenceServerClient) -> None:
    pixels = triton.InferInput("PIXELS", [1, 28, 28, 1], "UINT8")
    pixels.set_data_from_numpy(_wire("chest")["PIXELS"][:1])
    output = triton.InferRequestedOutput("PROBABILITIES", class_count=3)
    (row,) = raw.infer("chest_fused", [pixels], outputs=[output]).as_numpy("PROBABILITIES")
    assert {entry.decode().split(":")[2] for entry in row} == {"a", "b", "c"}


def test_tokens_are_counted_truly(raw: triton.InferenceServerClient) -> None:
    long = " ".join(["effusion"] * (MAX_TOKENS + 5))
    for form in ("fused", "unfused"):
        answer = infer(raw, f"report_{form}", {"TEXT": _texts("no effusion", long, "")})
        assert answer["TOKEN_COUNT"].tolist() == [[2], [MAX_TOKENS + 5], [0]]


def test_a_text_that_is_no_utf8_fails_alone(raw: triton.InferenceServerClient) -> None:
    good, bad = {"TEXT": _texts("no effusion")}, {"TEXT": _texts(b"no \xff")}
    answers = infer_together(raw, "report_fused", [good, bad] * 8)
    for answer in answers[::2]:
        assert isinstance(answer, dict), answer
    for answer in answers[1::2]:
        assert "TEXT is not valid UTF-8" in str(answer)


def test_a_longer_report_is_out_of_the_models_scope(server: EmbeddedServer) -> None:
    with Client(server.grpc_url) as client:
        model = client.model("report_fused")
        assert model.predict("no effusion").top.label == "critical"
        with pytest.raises(OutOfScopeError):
            model.predict(" ".join(["effusion"] * (MAX_TOKENS + 1)))


def test_bare_tensors_are_served_under_their_own_names(server: EmbeddedServer, folder: Path) -> None:
    rng = np.random.default_rng(0)
    feeds = {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "b": rng.normal(size=(3, 9, 3)).astype(np.float32) * (np.arange(9)[None, :, None] < [[[9]], [[4]], [[0]]]),
    }
    with Client(server.grpc_url) as client:
        answer = client.model("raw").infer(feeds)
    model, _ = load_model(folder / "raw.keras")
    left, right = model([feeds["a"], feeds["b"]], training=False)
    np.testing.assert_allclose(answer["left"], left, atol=1e-5, rtol=0)
    np.testing.assert_allclose(answer["right"], right, atol=1e-5, rtol=0)


def test_a_second_version_is_served_beside_the_first(
    tmp_path: Path, start_server: Callable[..., EmbeddedServer]
) -> None:
    for seed in (0, 1):
        done = export_network(tmp_path, dense_network(seed=seed), image_spec())
    assert done.version == 2
    server = start_server(tmp_path / "models")
    with triton.InferenceServerClient(server.grpc_url) as client:
        assert client.is_model_ready("tiny_pipeline", "1")
        assert client.is_model_ready("tiny_pipeline", "2")
        assert client.is_model_ready("tiny", "2")
        assert not client.is_model_ready("tiny", "1")
    with Client(server.grpc_url) as reader:
        assert reader.model("tiny").predict(np.zeros((4, 3, 1), np.uint8)).version == 2


def test_a_model_without_a_queue_takes_all_requests_alike(tmp_path: Path) -> None:
    spec = yaml.safe_load(write_family(tmp_path, "chest", fuse=True).read_text())
    spec["serving"]["queue"] = None
    pipeline.export(write_spec(tmp_path, spec), tmp_path / "models")
    assert check_repository(tmp_path / "models") == []
    x = _wire("chest")["PIXELS"]
    with EmbeddedServer(tmp_path / "models") as server, Client(server.grpc_url) as client:
        with triton.InferenceServerClient(server.grpc_url) as raw:
            pixels = triton.InferInput("PIXELS", x.shape, "UINT8").set_data_from_numpy(x)
            # Whoever is no SDK of ours: Triton passes over both.
            answer = raw.infer(spec["name"], [pixels], priority=1, timeout=1).as_numpy("PROBABILITIES")
        model = client.model(spec["name"])
        found = [model.infer({"PIXELS": x}, priority=one)["PROBABILITIES"] for one in (None, Priority.ROUTINE)]
        assert np.array_equal(found[0], answer)
        assert np.array_equal(found[1], answer)
        with pytest.raises(InputError, match="takes all requests alike: leave priority out"):
            model.predict(x[0], priority=Priority.STAT)
        (rejected,) = model.predict_many([x[0]], priority=Priority.URGENT)
        assert isinstance(rejected, Rejection)
        assert isinstance(rejected.error, InputError)


def test_a_model_below_its_minimum_accuracy_is_not_published(tmp_path: Path) -> None:
    spec = yaml.safe_load(write_family(tmp_path, "chest").read_text())
    classes = ("normal", "opacity", "nodule", "effusion", "pneumothorax", "cardiomegaly")
    spec["labels"] = [label(name) for name in classes]
    spec["evaluation"] = {"generator": "chest_xray", "samples": 12, "seed": 1, "minimum_accuracy": 0.95}
    network = keras.Sequential([layers.Input((28, 28, 1)), layers.Flatten(), layers.Dense(6, activation="softmax")])
    vary(network).save(tmp_path / "chest.keras")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(ExportError, match=r"accuracy through the whole path is 0\.\d+ on 12 samples, below"):
        pipeline.export(tmp_path / "spec.yaml", tmp_path / "models", evaluate=evaluate)
    assert not (tmp_path / "models").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
