"""Kinds of models and files: what they take and give, and what is said where a layer cannot be exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.comparison import NAMED, assert_equal, random_feeds
from support.keras_models import keras, layers
from support.weights import randomise

from radserve.contracts import Datatype, TensorSpec
from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import tf
from radserve_export.from_keras.convert import convert
from radserve_export.from_keras.load import load_model
from radserve_export.from_keras.saved_model import as_keras_model
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain, signature
from radserve_export.network import Conversion, Form

if TYPE_CHECKING:
    from pathlib import Path


@keras.saving.register_keras_serializable("radserve-tests")
class Scaled(layers.Layer):  # type: ignore[misc]  # Keras is untyped
    def build(self, _: Any) -> None:
        self.factor = self.add_weight(shape=(1,), initializer="ones", name="factor")

    def call(self, x: Any) -> Any:
        return x * self.factor


@keras.saving.register_keras_serializable("radserve-tests")
class Twin(keras.Model):  # type: ignore[misc]  # as above
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = keras.Sequential([layers.Conv2D(3, 3, name="deep"), Scaled()], name="inner")
        self.head = layers.Dense(2)

    def build(self, image_shape: Any, age_shape: Any) -> None:
        self.inner.build(image_shape)
        self.head.build((None, 3 + age_shape[-1]))

    def call(self, image: Any, age: Any) -> Any:
        features = keras.ops.mean(self.inner(image), axis=(1, 2))
        return {"risk": self.head(keras.ops.concatenate([features, age], axis=-1)), "features": features}


@keras.saving.register_keras_serializable("radserve-tests")
class Single(keras.Model):  # type: ignore[misc]  # as above
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.head = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(x)


def _twin() -> keras.Model:
    model = Twin()
    model(np.zeros((4, 8, 8, 1), np.float32), np.zeros((4, 1), np.float32))
    return randomise(model)


def test_a_subclassed_model_takes_what_it_was_built_with() -> None:
    network = convert(_twin(), NAMED, source_sha256="")
    assert_equal(network)
    inputs, outputs = signature(network.graph)
    assert {(t.name, t.dims) for t in inputs} == {("image", (8, 8, 1)), ("age", (1,))}
    assert {(t.name, t.dims) for t in outputs} == {("features", (3,)), ("risk", (2,))}


def test_a_subclassed_model_that_was_never_built_takes_what_the_spec_gives() -> None:
    model = Single()
    given = TensorSpec(name="any", dtype=Datatype.FP32, dims=(4,))
    with pytest.raises(ConversionError, match=r"does not say what it takes: call it on one batch before saving it"):
        convert(model, source_sha256="")
    network = convert(model, Conversion(form=Form.PLAIN, inputs=(given,)), source_sha256="")
    assert_equal(network)
    with pytest.raises(ConversionError, match=r"cannot be called with image \[None, 4\]"):
        convert(Twin(), Conversion(form=Form.PLAIN, inputs=(given,)), source_sha256="")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_models_come_from_every_format(tmp_path: Path, suffix: str) -> None:
    scan = layers.Input((8, 8, 1), name="scan")
    model = keras.Model(scan, layers.Dense(2)(layers.Flatten()(layers.Conv2D(2, 3)(scan))))
    randomise(model).save(tmp_path / f"m{suffix}")
    loaded, _ = load_model(tmp_path / f"m{suffix}", trust=suffix == ".h5")
    feeds = {NETWORK_INPUT: np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)}
    network = convert(loaded, source_sha256="")
    got = Chain([network.graph])(feeds)[NETWORK_OUTPUT]
    np.testing.assert_allclose(got, model(feeds[NETWORK_INPUT]), atol=1e-5)


def test_a_subclassed_model_comes_back_from_its_file(tmp_path: Path) -> None:
    model = _twin()
    model.save(tmp_path / "m.keras")
    network = convert(keras.saving.load_model(tmp_path / "m.keras"), NAMED, source_sha256="")
    assert_equal(network)
    feeds = random_feeds(network, 3)
    want = model(feeds["image"], feeds["age"])
    for name, value in Chain([network.graph])(feeds).items():
        np.testing.assert_allclose(value, want[name], atol=1e-5)


def test_a_saved_model_is_served_by_its_signature(tmp_path: Path) -> None:
    a, b = layers.Input((4,), name="a"), layers.Input((None, 3), name="b")
    model = keras.Model({"a": a, "b": b}, {"a": layers.Dense(2)(a), "steps": layers.LSTM(5)(layers.Masking()(b))})
    randomise(model).export(tmp_path / "exported", verbose=False)
    network = convert(as_keras_model(tmp_path / "exported"), NAMED, source_sha256="")
    inputs, outputs = signature(network.graph)
    assert {(t.name, t.dims) for t in inputs} == {("a", (4,)), ("b", (-1, 3))}
    assert {(t.name, t.dims) for t in outputs} == {("a_output", (2,)), ("steps", (5,))}
    assert_equal(network)
    feeds = random_feeds(network, 3)
    want = model(feeds)
    got = Chain([network.graph])(feeds)
    np.testing.assert_allclose(got["a_output"], want["a"], atol=1e-5)
    np.testing.assert_allclose(got["steps"], want["steps"], atol=1e-5)


def test_a_saved_model_without_a_serving_signature_is_refused(tmp_path: Path) -> None:
    class Bare(tf.Module):  # type: ignore[misc]  # TensorFlow is untyped
        @tf.function(input_signature=[tf.TensorSpec([None, 3])])  # type: ignore[untyped-decorator]  # as above
        def __call__(self, x: Any) -> Any:
            return x

    tf.saved_model.save(Bare(), str(tmp_path / "bare"), signatures={})
    with pytest.raises(ConversionError, match=r"bare has no signature serving_default, only none"):
        as_keras_model(tmp_path / "bare")
    with pytest.raises(ConversionError, match=r"TensorFlow .* cannot load nothing"):
        as_keras_model(tmp_path / "nothing")


def test_inputs_that_nothing_reads_and_outputs_that_are_inputs_are_kept() -> None:
    a, unread = layers.Input((4,), name="a"), layers.Input((3,), name="unread")
    doubled = layers.Dense(2, name="d")(a)
    network = convert(keras.Model([unread, a], [a, doubled, doubled]), NAMED, source_sha256="")
    inputs, outputs = signature(network.graph)
    assert [t.name for t in inputs] == ["unread", "a"]
    assert [t.name for t in outputs] == ["a_output", "d", "d_1"]
    assert_equal(network)


def test_names_that_triton_does_not_take_are_changed() -> None:
    a, b = layers.Input((4,), name="age (years)"), layers.Input((4,), name="输入")
    network = convert(keras.Model([a, b], layers.Dense(2, name="-risk>1")(a + b)), NAMED, source_sha256="")
    inputs, outputs = signature(network.graph)
    assert [t.name for t in (*inputs, *outputs)] == ["age__years_", "__", "_-risk_1"]
    assert_equal(network)


def test_a_batch_size_that_nothing_depends_on_is_given_up() -> None:
    fixed = layers.Input((8, 8, 1), batch_size=2)
    model = keras.Model(fixed, layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3)(fixed))))
    network = convert(randomise(model), source_sha256="")
    assert_equal(network, rows=(1, 2, 7))


@keras.saving.register_keras_serializable("radserve-tests")
class Faulty(layers.Layer):  # type: ignore[misc]  # as above
    def call(self, x: Any) -> Any:
        if tf.is_tensor(x):  # Keras itself passes it on while the model is built
            message = "only on Tuesdays"
            raise RuntimeError(message)
        return x

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


@keras.saving.register_keras_serializable("radserve-tests")
class Spectrum(layers.Layer):  # type: ignore[misc]  # as above
    def call(self, x: Any) -> Any:
        return keras.ops.fft((x, x))[0]


@pytest.mark.parametrize(
    ("layer", "why"),
    [(Faulty, "RuntimeError: only on Tuesdays"), (Spectrum, "there is no ONNX operator for Complex")],
)
def test_a_layer_that_cannot_be_exported_is_named_with_its_path(layer: Any, why: str) -> None:
    inner = keras.Sequential([layers.Input((8,)), layers.Dense(8), layer(name="odd")], name="inner")
    outer = keras.Sequential([layers.Input((8,)), inner, layers.Dense(2)], name="outer")
    model = keras.Sequential([layers.Input((8,)), outer], name="whole")
    with pytest.raises(ConversionError, match=rf"^layer outer/inner/odd cannot be exported: {why}"):
        convert(model, source_sha256="")
