"""Hostile model files: each is refused by name, and leaves no trace."""

from __future__ import annotations

import json
import socket
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import evil
from support.evil import ARCHIVES, Traces, archive, dense, described, sequential
from support.keras_models import keras, layers
from support.refusals import refused

from radserve.errors import ExportError, UntrustedModelError
from radserve_export.from_keras.configuration import check_configuration
from radserve_export.from_keras.load import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def traces(tmp_path: Path, no_child_left: None) -> Iterator[Traces]:  # noqa: ARG001 - it checks in the end
    """What must not be there in the end: a folder, a caller at the port, a process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Traces(tmp_path / "canary", server.getsockname()[1])
        yield found
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not found.canary.exists()


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused_by_name(tmp_path: Path, traces: Traces, name: str) -> None:
    build, message = ARCHIVES[name]
    with pytest.raises(UntrustedModelError) as caught:
        load_model(build(tmp_path / "m.keras", traces), trust=True)
    assert str(caught.value).startswith("m.keras was not loaded: ")
    assert message in str(caught.value)


# One of each family; the others say the same in another way.
FAMILIES = (
    "a member that leaves the folder",
    "a member that is a link",
    "a member that inflates to too much",
    "a Lambda inside a wrapper inside a nested model",
    "an object that nobody registered",
    "CVE-2025-1550: a call of any module",
    "a vocabulary that is fetched",
    "a pickle among the assets",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAMILIES else pytest.mark.full) for name in ARCHIVES]
)
def test_through_the_command_it_is_one_line_and_nothing_is_written(
    tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    build, message = ARCHIVES[name]
    line = refused(tmp_path, build(tmp_path / "m.keras", traces), monkeypatch)
    assert line.startswith("radserve: m.keras was not loaded: ")
    assert message in line


def test_each_family_is_one_of_the_archives() -> None:
    assert set(FAMILIES) <= set(ARCHIVES)


def _lambda_model(traces: Traces) -> keras.Model:
    where = str(traces.canary)
    evil_layer = layers.Lambda(lambda x: [__import__("pathlib").Path(where).mkdir(), x][1], name="evil")
    model = keras.Sequential([layers.Input((2,)), layers.Dense(2), evil_layer])
    traces.canary.rmdir()
    return model


def test_hdf5_needs_trust_and_its_code_is_not_run_even_then(
    tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lambda_model(traces).save(tmp_path / "m.h5")
    with pytest.raises(UntrustedModelError, match=r"an HDF5 model can run code.*say --trust"):
        load_model(tmp_path / "m.h5")
    with pytest.raises(UntrustedModelError, match=r"layer 'evil' \(Lambda\)"):
        load_model(tmp_path / "m.h5", trust=True)
    line = refused(tmp_path, tmp_path / "m.h5", monkeypatch)
    assert line.startswith("radserve: m.h5: an HDF5 model can run code while it is loaded")
    assert "say --trust" in line


def test_the_lambda_would_have_left_its_trace(tmp_path: Path) -> None:
    found = Traces(tmp_path / "canary", 0)
    _lambda_model(found).save(tmp_path / "m.keras")
    keras.saving.load_model(tmp_path / "m.keras", safe_mode=False)
    assert found.canary.exists()


def test_a_trusted_hdf5_model_is_loaded(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((2,)), layers.Dense(2, "relu", kernel_regularizer="l2"), layers.LSTM(1)][:2])
    model.compile("adam", "mse", metrics=["accuracy"])
    model.save(tmp_path / "m.h5")
    loaded, _ = load_model(tmp_path / "m.h5", trust=True)
    assert [type(layer).__name__ for layer in loaded.layers] == ["Dense"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"class_name": "Evil", "config": {}}, "Evil: only Keras"),
        ({"class_name": "pack>Evil", "config": {}}, "pack>Evil: only Keras"),
        ({"class_name": "TFSMLayer", "config": {"name": "s"}}, r"layer 's' \(TFSMLayer\)"),
        ({"class_name": "Dense", "config": {}, "module": "os"}, "Dense of os"),
        ({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "reads its vocabulary from a file"),
    ],
)
def test_the_configuration_of_a_trusted_hdf5_model_is_looked_at(layer: dict[str, Any], message: str) -> None:
    model: Any = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
    with pytest.raises(UntrustedModelError, match=message):
        check_configuration(model, "m.h5", legacy=True)


def test_a_model_of_many_layers_compiled_with_much_passes(tmp_path: Path) -> None:
    taken = keras.Input((8, 3))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, kernel_constraint="max_norm"))(taken)
    x = keras.ops.relu(x[:, 1:] * 2 + layers.MultiHeadAttention(2, 3)(x, x)[:, 1:])
    x = layers.TimeDistributed(keras.Sequential([layers.Dense(2, activation=keras.activations.gelu)]))(x)
    x = layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)])(x)
    model = keras.Model(taken, layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(0.1))(x))
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model.compile(keras.optimizers.AdamW(schedule), keras.losses.Huber(), [keras.metrics.AUC(), "mae"])
    model.save(tmp_path / "m.keras")
    loaded, _ = load_model(tmp_path / "m.keras")
    assert len(loaded.layers) == len(model.layers)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "config", "module", "registered_name", "name", "vocabulary", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(value=json_values, legacy=st.booleans())
def test_no_configuration_breaks_the_look_at_it(value: Any, legacy: bool) -> None:  # noqa: FBT001 - hypothesis names it
    try:
        check_configuration(value, "m.keras", legacy=legacy)
    except UntrustedModelError as error:
        assert str(error).startswith("m.keras was not loaded")  # noqa: PT017 - it may also pass


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in _places(item, (*path, key)))]


BASE = sequential(
    dense(kernel_initializer=described("keras.initializers", "HeNormal", {"seed": None}), activation="relu"),
    described("keras.layers", "Dropout", {"name": "dropout", "rate": 0.5}),
    build_config={"input_shape": [None, 3]},
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(_places(BASE)[1:]), value=json_values)
def test_a_changed_configuration_is_loaded_or_refused(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    config = json.loads(json.dumps(BASE))
    holder = config
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    try:
        loaded, _ = load_model(archive(tmp_path / "m.keras", config))
    except ExportError as error:
        assert "m.keras" in str(error)  # noqa: PT017 - it may also be loaded
    else:
        assert isinstance(loaded, keras.Model)


def test_the_unchanged_configuration_is_loaded(tmp_path: Path) -> None:
    loaded, _ = load_model(archive(tmp_path / "m.keras", BASE))
    assert loaded.count_params() == 8


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_without_a_bound_is_refused(tmp_path: Path, compression: int) -> None:
    path = archive(tmp_path / "m.keras", BASE)
    with zipfile.ZipFile(path, "a", compression) as file:
        file.writestr("assets/a.txt", bytes(2**20))
    with pytest.raises(UntrustedModelError, match=r"'assets/a\.txt': Keras writes no such member"):
        load_model(path)


def test_a_member_larger_than_it_says_is_not_inflated_further(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", json.dumps(BASE) + " " * 2**24)
        file.writestr("model.weights.h5", evil.weights())
    content = path.read_bytes()
    size = len(json.dumps(BASE) + " " * 2**24).to_bytes(4, "little")
    assert content.count(size) == 2  # its own header, and the directory's
    path.write_bytes(content.replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(ExportError, match="damaged"):
        load_model(path)
