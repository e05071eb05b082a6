"""SavedModel folders: a graph is a program, so only operations that compute are loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.keras_models import keras, layers
from support.refusals import refused
from tensorflow.core.protobuf import saved_model_pb2

from radserve.errors import ConversionError, UntrustedModelError
from radserve_export.from_keras._tensorflow import tf
from radserve_export.from_keras.load import load_model
from radserve_export.from_keras.saved_model_check import check_saved_model
from radserve_export.model_file import copy_model

if TYPE_CHECKING:
    from collections.abc import Callable


def _saved(folder: Path, function: Callable[[Any], Any]) -> Path:
    module = tf.Module()
    spec = tf.TensorSpec([None, 2], tf.float32, name="x")
    # Traced here: nothing of it runs before somebody calls the signature.
    signature = tf.function(lambda x: {"y": function(x)}).get_concrete_function(spec)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
    return folder


def _writing(canary: Path) -> Callable[[Any], Any]:
    def write(x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(str(canary), "x")]):
            return tf.identity(x)

    return write


def _python(canary: Path) -> Callable[[Any], Any]:
    return lambda x: tf.numpy_function(lambda array: [canary.write_text("x"), array][1], [x], tf.float32)


def _restored(x: Any) -> Any:
    return x + tf.raw_ops.RestoreV2(prefix="/etc/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0]


def _printed(canary: Path) -> Callable[[Any], Any]:
    def show(x: Any) -> Any:
        with tf.control_dependencies([tf.raw_ops.PrintV2(input="x", output_stream=f"file://{canary}")]):
            return tf.identity(x)

    return show


HOSTILE: dict[str, tuple[Callable[[Path], Callable[[Any], Any]], str]] = {
    "writes a file": (_writing, "operation WriteFile"),
    "prints to a file": (_printed, "operation PrintV2"),
    "runs Python": (_python, "operation (EagerPyFunc|PyFunc)"),
    "reads a file": (
        lambda _: lambda x: x + tf.strings.to_number(tf.io.read_file("/etc/passwd")),
        "operation ReadFile",
    ),
    "lists a folder": (
        lambda _: lambda x: x + tf.cast(tf.size(tf.io.matching_files("/etc/*")), tf.float32),
        "operation MatchingFiles",
    ),
    "reads a checkpoint of somebody else": (lambda _: _restored, "node |operation RestoreV2|function "),
    "reads data sets": (
        lambda _: (
            lambda x: x + tf.cast(next(iter([tf.data.TextLineDataset("/etc/passwd").reduce(0, _count)])), "float32")
        ),
        "operation .*Dataset",
    ),
    "hides it in a branch": (
        lambda canary: lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: _writing(canary)(x), lambda: x),
        "operation WriteFile",
    ),
    "hides it in a loop": (
        lambda canary: lambda x: tf.while_loop(lambda x: tf.reduce_sum(x) < 1, _writing(canary), [x])[0],
        "operation WriteFile",
    ),
}


def _count(total: Any, _line: Any) -> Any:
    return total + 1


@pytest.mark.parametrize("name", HOSTILE)
def test_a_graph_that_does_more_than_compute_is_refused(tmp_path: Path, name: str) -> None:
    build, message = HOSTILE[name]
    canary = tmp_path / "canary"
    folder = _saved(tmp_path / "m", build(canary))
    with pytest.raises(UntrustedModelError, match=f"m was not loaded: ({message})"):
        load_model(folder, trust=True)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["writes a file", "prints to a file", "hides it in a branch"])
def test_the_graph_would_have_left_its_trace(tmp_path: Path, name: str) -> None:
    build, _ = HOSTILE[name]
    folder = _saved(tmp_path / "m", build(tmp_path / "canary"))
    tf.saved_model.load(str(folder)).signatures["serving_default"](tf.ones((1, 2)))
    assert (tmp_path / "canary").exists()


@pytest.mark.usefixtures("no_child_left")
def test_through_the_command_it_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _saved(tmp_path / "m", _writing(tmp_path / "canary"))
    line = refused(tmp_path, model, monkeypatch)
    assert line.startswith("radserve: m was not loaded: operation WriteFile")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``model.export`` writes."""
    folder = tmp_path_factory.mktemp("exported") / "m"
    model = keras.Sequential([layers.Input((4, 2)), layers.LSTM(3), layers.BatchNormalization(), layers.Dense(2)])
    model.export(folder, verbose=False)
    return folder


def test_what_keras_exports_is_loaded(exported: Path) -> None:
    model, sha256 = load_model(exported)
    assert [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)] == [(None, 4, 2), (None, 2)]
    assert sha256 == load_model(exported)[1]


def test_tables_of_text_layers_are_loaded(tmp_path: Path) -> None:
    text = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3)
    keras.Sequential([layers.Input((1,), dtype="string"), text, layers.Embedding(5, 2)]).export(
        tmp_path / "m", verbose=False
    )
    check_saved_model(tmp_path / "m")


@pytest.fixture
def folder(tmp_path: Path, exported: Path) -> Path:
    """A copy, to be changed."""
    copy = tmp_path / "m"
    for path in exported.rglob("*"):
        target = copy / path.relative_to(exported)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.write_bytes(path.read_bytes())
    return copy


def test_a_folder_may_be_named_relative_to_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models/m/variables").mkdir(parents=True)
    for member in ("saved_model.pb", "variables/variables.index"):
        (tmp_path / "models/m" / member).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copies").mkdir()
    copy, _ = copy_model(Path("models/m"), tmp_path / "copies", trust=False)
    assert (copy / "variables/variables.index").read_bytes() == b"x"


@pytest.mark.parametrize("member", ["saved_model.pbtxt", "assets/vocabulary.txt", "variables/x.so", "extra/a.py"])
def test_further_members_are_refused(folder: Path, member: str) -> None:
    (folder / member).parent.mkdir(exist_ok=True)
    (folder / member).write_bytes(b"x")
    with pytest.raises(UntrustedModelError, match=r"'(extra|[a-z_/.]+)': (Keras writes|a model reads)"):
        load_model(folder)


def test_links_and_pipes_are_refused(folder: Path) -> None:
    index = folder / "variables" / "variables.index"
    index.rename(folder / "kept")
    index.symlink_to("/etc/passwd")
    with pytest.raises(UntrustedModelError, match=r"variables\.index': it is a link"):
        load_model(folder)
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(UntrustedModelError, match="it is not a file"):
        load_model(folder)


def _change(folder: Path, change: Callable[[Any], None]) -> None:
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    change(saved.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


def _saver(graph: Any) -> Any:
    return next(
        function
        for function in graph.graph_def.library.function
        if any(node.op == "SaveV2" for node in function.node_def)
    )


def _with_call_of_the_saver(graph: Any) -> None:
    other = next(f for f in graph.graph_def.library.function if "signature_wrapper" in f.signature.name)
    node = other.node_def.add(name="evil", op="StatefulPartitionedCall")
    node.attr["f"].func.name = _saver(graph).signature.name


def _with_call_from_the_graph(graph: Any) -> None:
    node = graph.graph_def.node.add(name="evil", op="PartitionedCall")
    node.attr["f"].func.name = _saver(graph).signature.name


def _with_the_saver_as_a_method(graph: Any) -> None:
    graph.object_graph_def.nodes[0].function.concrete_functions.append(_saver(graph).signature.name)


def _with_a_swapped_implementation(graph: Any) -> None:
    _saver(graph).attr["api_implements"].s = b"x"


def _with_an_asset(graph: Any) -> None:
    graph.asset_file_def.add(filename="../../etc/passwd")


def _with_an_asset_object(graph: Any) -> None:
    graph.object_graph_def.nodes.add().asset.SetInParent()


def _with_a_registered_object(graph: Any) -> None:
    graph.object_graph_def.nodes[0].registered_name = "evil.Object"


def _with_a_variant(graph: Any) -> None:
    node = graph.graph_def.node.add(name="evil", op="Const")
    node.attr["value"].tensor.dtype = tf.variant.as_datatype_enum


def _with_an_unknown_operation(graph: Any) -> None:
    graph.graph_def.node.add(name="evil", op="XlaCallModule")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_call_of_the_saver, "it calls what reads and writes the checkpoint"),
        (_with_call_from_the_graph, "node evil: it calls what reads and writes the checkpoint"),
        (_with_the_saver_as_a_method, "it reads and writes the checkpoint"),
        (_with_a_swapped_implementation, "it calls what reads and writes the checkpoint"),
        (_with_an_asset, "its assets: a model reads no further files"),
        (_with_an_asset_object, "object asset"),
        (_with_a_registered_object, r"object evil\.Object"),
        (_with_a_variant, "it holds something else than numbers and text"),
        (_with_an_unknown_operation, "operation XlaCallModule"),
    ],
)
def test_a_changed_graph_is_refused(folder: Path, change: Callable[[Any], None], message: str) -> None:
    _change(folder, change)
    with pytest.raises(UntrustedModelError, match=message):
        load_model(folder)


def test_a_model_of_tensorflow_1_says_what_to_do(folder: Path) -> None:
    _change(folder, lambda graph: graph.ClearField("object_graph_def"))
    with pytest.raises(ConversionError, match="of TensorFlow 1: save the model"):
        load_model(folder)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_damaged_folder_is_told(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff" * 100)
    with pytest.raises(ConversionError, match=r"damaged|cannot load"):
        load_model(folder)


def test_the_hash_is_of_paths_and_contents(folder: Path) -> None:
    before = load_model(folder)[1]
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.rename(data.with_name("variables.data-00000-of-00002"))
    with pytest.raises(ConversionError):
        load_model(folder)
    data.with_name("variables.data-00000-of-00002").rename(data)
    (folder / "fingerprint.pb").write_bytes(b"")
    assert load_model(folder)[1] != before
