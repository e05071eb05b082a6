"""Custom objects: only those that the user names, and they are confined as the model is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import custom_layers
from support.commands import RADSERVE
from support.custom_layers import Doubled, Registered, Spy, squared
from support.evil import archive, dense, described, sequential
from support.exports import image_spec, write_spec
from support.keras_models import keras, layers
from support.kernel import has_landlock
from support.leftovers import children
from support.servers import wait_until

from radserve.errors import ConversionError, SpecError, UntrustedModelError
from radserve_export.from_keras.configuration import check_configuration
from radserve_export.from_keras.load import load_model
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.network import Conversion, Form
from radserve_export.sandbox.limits import Limits
from radserve_export.sandbox.network import converted_network
from radserve_export.sandbox.text import LONGEST

PLAIN = Conversion(form=Form.PLAIN)
MODULE = "support.custom_layers"


def _saved(folder: Path, *more: Any) -> Path:
    keras.Sequential([layers.Input((3,)), *more]).save(folder / "m.keras")
    return folder / "m.keras"


def test_custom_layers_and_functions_that_the_user_names_are_loaded(tmp_path: Path) -> None:
    dense_layer = layers.Dense(3, activation=squared, use_bias=False, kernel_initializer="ones")
    path = _saved(tmp_path, Doubled(), Registered(), dense_layer)
    names = [f"{MODULE}:{name}" for name in ("Doubled", "Registered", "squared")]
    model, _ = load_model(path, custom_objects=names)
    assert model(np.ones((1, 3), np.float32)).numpy().tolist() == [[18.0**2] * 3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "Doubled of support.custom_layers: only Keras' own.*--custom-objects"),
        ([f"{MODULE}:Doubled"], "hospital>Registered|Registered of support"),
    ],
)
def test_those_that_the_user_does_not_name_are_refused(tmp_path: Path, given: list[str], message: str) -> None:
    with pytest.raises(UntrustedModelError, match=message):
        load_model(_saved(tmp_path, Doubled(), Registered()), custom_objects=given)


@pytest.mark.parametrize(
    ("module", "class_name", "advice"),
    [
        ("hospital.layers", "Attention", "add --custom-objects hospital.layers:Attention"),
        ("hospital.layers", "pack>Attention", "add --custom-objects hospital.layers:Attention"),
        ("__main__", "Attention", "add --custom-objects MODULE:Attention, MODULE being where you define it"),
        (None, "pack>Attention", "add --custom-objects MODULE:Attention, MODULE being where you define it"),
        ("hospital layers", "Attention", "add --custom-objects MODULE:Attention, MODULE being where you define it"),
    ],
)
def test_a_refused_custom_object_comes_with_the_option_to_add(module: str | None, class_name: str, advice: str) -> None:
    config = sequential(described(module, class_name, {}, registered_name=class_name))
    with pytest.raises(UntrustedModelError) as caught:
        check_configuration(config, "m.keras")
    assert str(caught.value).endswith(f": if that code is yours, {advice}")


@pytest.mark.parametrize(
    ("module", "class_name"),
    [("os", "mkdir"), ("shutil", "rmtree"), ("keras.utils", "get_file"), ("mine", "a b"), ("mine", "A" * 200)],
)
def test_what_no_user_defined_is_never_advised(module: str, class_name: str) -> None:
    with pytest.raises(UntrustedModelError) as caught:
        check_configuration(sequential(described(module, class_name, {})), "m.keras")
    assert "add --custom-objects" not in str(caught.value)


@pytest.mark.parametrize(
    "layer",
    [
        described("m\x1b[2J\n" * 999, "Evil", {}),
        described("evil", "E\u202e\n" * 999, {}),
        described("keras.layers", "Lambda", {"name": "\x07\n" * 999}),
        dense(kernel_initializer="http://\n\x1b" * 999),
    ],
)
def test_text_of_a_refused_file_is_short_and_printable(layer: dict[str, Any]) -> None:
    with pytest.raises(UntrustedModelError) as caught:
        check_configuration(sequential(layer), "m.keras")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < LONGEST


def test_another_object_under_the_name_of_one_that_is_given_is_refused(tmp_path: Path) -> None:
    stolen = described("support.custom_layers", "Doubled", {}, registered_name="elsewhere>Doubled")
    path = archive(tmp_path / "m.keras", sequential({**stolen, "registered_name": "elsewhere>Doubled"}))
    with pytest.raises(UntrustedModelError, match="elsewhere>Doubled is another object than the Doubled given"):
        load_model(path, custom_objects=[f"{MODULE}:Doubled"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Doubled", "write it as module:NAME"),
        ("a b:Doubled", "write it as module:NAME"),
        ("support.absent:Doubled", "ModuleNotFoundError.*run radserve where the module is"),
        (f"{MODULE}:Absent", "AttributeError"),
    ],
)
def test_a_custom_object_that_cannot_be_had_is_told(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_model(_saved(tmp_path, layers.Dense(1)), custom_objects=[given])


def test_no_module_is_imported_for_a_file_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "leaves_a_trace.py").write_text("raise SystemExit")
    path = archive(tmp_path / "m.keras", sequential(dense(activation=described("os", "function", "system"))))
    with pytest.raises(UntrustedModelError):
        load_model(path, custom_objects=["leaves_a_trace:Layer"])
    assert "leaves_a_trace" not in sys.modules


@pytest.mark.usefixtures("no_child_left")
@pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")
def test_a_hostile_layer_that_the_user_trusts_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADSERVE_SECRET", "x")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "secret").write_text("of a patient")
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = Spy("", name="spy").get_config() | {"folder": str(folder), "port": server.getsockname()[1]}
        path = archive(tmp_path / "m.keras", sequential(described(None, "Spy", config, registered_name="Spy")))
        with converted_network(path, PLAIN, custom_objects=[f"{MODULE}:Spy"]) as network:
            answer = network.reference({NETWORK_INPUT: np.ones((1, 3), np.float32)})[NETWORK_OUTPUT]
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert answer.tolist() == [[1.0] + [0.0] * (len(Spy().attempts()) - 1)]
    assert [path.name for path in folder.iterdir()] == ["secret"]


def test_a_module_of_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import keras\nclass Halved(keras.layers.Layer):\n    def call(self, x):\n        return x / 2\n"
    )
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "m.keras", sequential(described("mine", "Halved", {}, registered_name="Halved")))
    with converted_network(path, PLAIN, custom_objects=["mine:Halved"]) as network:
        answer = network.reference({NETWORK_INPUT: np.ones((2, 3), np.float32)})
    assert answer[NETWORK_OUTPUT].tolist() == [[0.5] * 3] * 2


@pytest.mark.usefixtures("no_child_left")
def test_a_model_that_takes_all_memory_is_stopped_and_the_option_named(tmp_path: Path) -> None:
    path = _saved(tmp_path, custom_layers.Greedy())
    with (
        pytest.raises(ConversionError, match=r"m\.keras needs more than 1\.5 GiB.*--memory-limit-gib"),
        converted_network(path, PLAIN, custom_objects=[f"{MODULE}:Greedy"], limits=Limits(memory_gib=1.5)),
    ):
        pass


@pytest.mark.usefixtures("no_child_left")
@pytest.mark.full
def test_a_model_that_never_finishes_is_stopped_and_the_option_named(tmp_path: Path) -> None:
    path = _saved(tmp_path, custom_layers.Slow())
    with (
        pytest.raises(ConversionError, match=r"m\.keras took longer than 40 s.*--time-limit-s"),
        converted_network(path, PLAIN, custom_objects=[f"{MODULE}:Slow"], limits=Limits(time_s=40)),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_export_leaves_no_child_and_no_file(tmp_path: Path, number: signal.Signals) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    _saved(tmp_path, layers.Dense(3)).rename(tmp_path / "tiny.keras")
    spec = write_spec(tmp_path, image_spec())
    command = [*RADSERVE, "export", str(spec)]
    with subprocess.Popen(  # noqa: S603 - this Python, on files of this test
        [*command, "--repository", str(tmp_path / "models")],
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert wait_until(lambda: children(process.pid) != set())
        started = children(process.pid)
        assert _folders(temporary)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert wait_until(lambda: not any(_is_alive(child) for child in started))
    assert not (tmp_path / "models").exists()
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert errors == "interrupted; what was not reported as finished was not written\n"
        assert not _folders(temporary)


def _folders(temporary: Path) -> list[Path]:
    return list(temporary.glob("radserve*"))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
