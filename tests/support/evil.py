"""What a hostile model file would do if it were let: leave a trace in a folder, or call a port."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Traces:
    """Where hostile files would leave a trace: ``canary`` is made, or ``address`` is called."""

    def __init__(self, canary: Path, port: int) -> None:
        self.canary = canary
        self.address = f"http://127.0.0.1:{port}/payload.keras"


Config = dict[str, Any]


def described(module: str | None, class_name: str, config: Any, **more: Any) -> Config:
    """An object of a configuration."""
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None, **more}


def dense(**config: Any) -> Config:
    """A Dense layer with changes to its configuration."""
    return described("keras.layers", "Dense", {"name": "dense", "units": 2, **config})


def sequential(*layers: Config, **more: Any) -> Config:
    """A model of these layers on three inputs."""
    first = described("keras.layers", "InputLayer", {"name": "in", "batch_shape": [None, 3], "dtype": "float32"})
    return described("keras", "Sequential", {"name": "model", "layers": [first, *layers]}, **more)


def calling(function: Config, *arguments: Any) -> Config:
    """A functional model whose one node calls a function with these arguments (the shape of CVE-2025-1550)."""
    node = {**function, "name": "evil", "inbound_nodes": [{"args": list(arguments), "kwargs": {}}]}
    graph = {"name": "m", "layers": [node], "input_layers": [["evil", 0, 0]], "output_layers": [["evil", 0, 0]]}
    return described("keras.src.models.functional", "Functional", graph)


def weights() -> bytes:
    """Weights of ``dense``."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = np.ones((3, 2), np.float32)
        file["layers/dense/vars/1"] = np.zeros(2, np.float32)
    return stream.getvalue()


def archive(path: Path, config: Config, *extra: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    """Write a ``.keras`` archive."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", weights())
        for name, content in extra:
            file.writestr(name, content)
    return path


def _function(module: str, name: str) -> Config:
    return described(module, "function", name, registered_name=name)


def _python(traces: Traces) -> str:
    return f"__import__('pathlib').Path({str(traces.canary)!r}).mkdir()"


def _pickle(traces: Traces) -> bytes:
    # The opcodes of a call of os.mkdir, by hand: nothing here imports pickle.
    return b"cos\nmkdir\n(S" + repr(str(traces.canary)).encode() + b"\ntR."


def _link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def _inflating(path: Path) -> Path:
    """A configuration of a few KiB that becomes more than 64 MiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", json.dumps(sequential(dense())) + " " * 2**26)
        file.writestr("model.weights.h5", weights())
    return path


ARCHIVES: dict[str, tuple[Callable[[Path, Traces], Path], str]] = {
    "CVE-2025-1550: a call of any module": (
        lambda path, traces: archive(path, calling(_function("os", "mkdir"), str(traces.canary))),
        "mkdir of os: only Keras",
    ),
    "CVE-2025-8747: a download by Keras' own hand": (
        lambda path, traces: archive(path, calling(_function("keras.utils", "get_file"), "x", traces.address)),
        "get_file of keras.utils: only Keras",
    ),
    "CVE-2025-8747: from inside Keras": (
        lambda path, traces: archive(
            path, calling(_function("keras.src.utils.file_utils", "get_file"), "x", traces.address)
        ),
        "get_file of keras.src.utils.file_utils",
    ),
    "CVE-2025-9906: the configuration switches safe mode off": (
        lambda path, traces: archive(
            path,
            sequential(
                dense(activation=_function("keras.config", "enable_unsafe_deserialization")),
                described("keras.layers", "Lambda", {"name": "then", "function": _python(traces)}),
            ),
        ),
        "enable_unsafe_deserialization of keras.config",
    ),
    "another model is loaded": (
        lambda path, traces: archive(path, calling(_function("keras.models", "load_model"), traces.address)),
        "load_model of keras.models",
    ),
    "a Lambda inside a wrapper inside a nested model": (
        lambda path, traces: archive(
            path,
            sequential(
                sequential(
                    described(
                        "keras.layers",
                        "TimeDistributed",
                        {
                            "name": "each",
                            "layer": described("keras.layers", "Lambda", {"name": "evil", "function": _python(traces)}),
                        },
                    )
                )
            ),
        ),
        "layer 'evil' (Lambda): a Lambda layer holds Python code",
    ),
    "Python code as an activation": (
        lambda path, traces: archive(
            path, sequential(dense(activation={"class_name": "__lambda__", "config": {"value": _python(traces)}}))
        ),
        "__lambda__: it holds Python code",
    ),
    "a module in an initializer": (
        lambda path, traces: archive(
            path, sequential(dense(kernel_initializer=described("os", "mkdir", {"path": str(traces.canary)})))
        ),
        "mkdir of os",
    ),
    "a module in a call's arguments": (
        lambda path, traces: archive(
            path,
            sequential({**dense(), "inbound_nodes": [{"args": [_function("os", str(traces.canary))], "kwargs": {}}]}),
        ),
        "of os: only Keras",
    ),
    "a module in build_config": (
        lambda path, _traces: archive(path, sequential({**dense(), "build_config": {"x": _function("os", "mkdir")}})),
        "mkdir of os",
    ),
    "a module in the loss of a nested model": (
        lambda path, _traces: archive(
            path, sequential(sequential(dense(), compile_config={"loss": _function("subprocess", "call")}))
        ),
        "call of subprocess",
    ),
    "a module in the metrics": (
        lambda path, _traces: archive(
            path, sequential(dense(), compile_config={"metrics": [[described("evil", "Metric", {})]]})
        ),
        "Metric of evil",
    ),
    "a module in the optimizer's schedule": (
        lambda path, _traces: archive(
            path,
            sequential(
                dense(),
                compile_config={
                    "optimizer": described("keras.optimizers", "Adam", {"learning_rate": described("evil", "S", {})})
                },
            ),
        ),
        "S of evil",
    ),
    "a type specification": (
        lambda path, _traces: archive(
            path, sequential(dense(dtype={"class_name": "__typespec__", "spec_name": "x", "module": "os"}))
        ),
        "__typespec__ of os",
    ),
    "an object that nobody registered": (
        lambda path, _traces: archive(path, sequential(described("evil", "Evil", {}, registered_name="pack>Evil"))),
        "Evil of evil",
    ),
    "a layer that loads a SavedModel": (
        lambda path, traces: archive(
            path, sequential(described("keras.layers", "TFSMLayer", {"name": "s", "filepath": traces.address}))
        ),
        "layer 's' (TFSMLayer)",
    ),
    "a layer that unpickles": (
        lambda path, traces: archive(
            path,
            sequential(
                described(
                    "keras.layers", "TorchModuleWrapper", {"name": "t", "module": _pickle(traces).decode("latin1")}
                )
            ),
        ),
        "layer 't' (TorchModuleWrapper): the layer unpickles",
    ),
    "a vocabulary that is fetched": (
        lambda path, traces: archive(
            path, sequential(described("keras.layers", "StringLookup", {"name": "v", "vocabulary": traces.address}))
        ),
        "layer 'v' (StringLookup): it reads its vocabulary from a file",
    ),
    "a vocabulary that is a file of this machine": (
        lambda path, _traces: archive(
            path,
            sequential(described("keras.layers", "TextVectorization", {"name": "v", "vocabulary": "/etc/passwd"})),
        ),
        "layer 'v' (TextVectorization): it reads its vocabulary from a file",
    ),
    "an address anywhere": (
        lambda path, traces: archive(path, sequential(dense(kernel_initializer=traces.address))),
        "a model reads nothing from elsewhere",
    ),
    "a member that leaves the folder": (
        lambda path, traces: archive(path, sequential(dense()), (f"assets/../../../{traces.canary}", b"x")),
        "it leaves the archive's folder",
    ),
    "a member that is a link": (
        lambda path, traces: archive(path, sequential(dense()), (_link("assets/x.txt"), str(traces.canary).encode())),
        "'assets/x.txt': it is a link",
    ),
    "a member that inflates to too much": (lambda path, _traces: _inflating(path), "'config.json': it is too large"),
    "a pickle among the assets": (
        lambda path, traces: archive(path, sequential(dense()), ("assets/x.npy", _pickle(traces))),
        "'assets/x.npy': Keras writes no such member",
    ),
}
