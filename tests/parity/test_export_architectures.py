"""Kinds of models and layers: each equal to Keras, in a graph as small as it should be."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.keras_models import keras, layers
from support.weights import randomise

from radserve.contracts import Datatype, TensorSpec
from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import tf
from radserve_export.from_keras.convert import convert
from radserve_export.from_keras.load import load_model
from radserve_export.from_keras.saved_model import as_keras_model
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain, all_nodes, signature
from radserve_export.network import Conversion, Form

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from radserve_export.network import Network

BOUND = 1e-5  # of the largest absolute value that the model gives
NAMED = Conversion(form=Form.NAMED)


def _operators(network: Network) -> Counter[str]:
    return Counter(node.op_type for node in all_nodes(network.graph.graph.node))


def _feeds(network: Network, rows: int, free: int = 5) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    feeds = {}
    for tensor in signature(network.graph)[0]:
        shape = (rows, *(free if dim < 0 else dim for dim in tensor.dims))
        if tensor.dtype.numpy.kind in "iu":
            feeds[tensor.name] = rng.integers(0, 9, shape).astype(tensor.dtype.numpy)
        else:
            feeds[tensor.name] = rng.normal(size=shape).astype(tensor.dtype.numpy)
    return feeds


def _assert_equal(network: Network, *, rows: tuple[int, ...] = (1, 3), bound: float = BOUND) -> None:
    """ONNX Runtime against Keras, on batches whose rows differ."""
    chain = Chain([network.graph])
    for count in rows:
        feeds = _feeds(network, count)
        got, want = chain(feeds), network.reference(feeds)
        assert set(got) == set(want)
        for name, value in want.items():
            assert got[name].shape == value.shape
            largest = np.abs(value).max()
            assert np.isfinite(largest)
            assert largest > 1e-3, "an output of zeros shows nothing"
            assert count == 1 or np.ptp(value, axis=0).max() > 1e-3 * largest, "rows must differ"
            assert np.abs(got[name] - value).max() <= bound * largest, name


def _turns(network: Network) -> int:
    return _operators(network)["Transpose"]


def _unet(interpolation: str | None) -> keras.Model:
    """Two levels, skip connections, and both ways up."""

    def block(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Activation("relu")(
                layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x))
            )
        return x

    def up(x: Any, filters: int) -> Any:
        if interpolation is None:
            return layers.Conv2DTranspose(filters, 2, strides=2, padding="same")(x)
        return layers.Conv2D(filters, 1)(layers.UpSampling2D(2, interpolation=interpolation)(x))

    scan = layers.Input((16, 16, 1))
    first = block(scan, 4)
    second = block(layers.MaxPooling2D(2)(first), 8)
    bottom = block(layers.MaxPooling2D(2)(second), 16)
    x = block(layers.Concatenate()([up(bottom, 8), second]), 8)
    x = block(layers.Concatenate()([up(x, 4), first]), 4)
    return keras.Model(scan, layers.Conv2D(3, 1, activation="softmax")(x))


@pytest.mark.parametrize("interpolation", [None, "nearest", "bilinear"])
def test_a_unet_turns_its_axes_once_in_and_once_out(interpolation: str | None) -> None:
    network = convert(randomise(_unet(interpolation)), source_sha256="")
    _assert_equal(network)
    assert _turns(network) <= 2
    assert not {"Shape", "Loop", "Slice"} & set(_operators(network))


def _attention() -> keras.Model:
    tokens = layers.Input((None,), dtype="int32")
    x = layers.Embedding(10, 8, mask_zero=True)(tokens)
    attended = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    x = layers.Dense(16, activation="gelu")(x)
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def _cross_attention() -> keras.Model:
    a, b = layers.Input((6, 4), name="a"), layers.Input((7, 4), name="b")
    return keras.Model([a, b], layers.MultiHeadAttention(2, 3, output_shape=5)(a, b, use_causal_mask=True))


def _volume() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((6, 8, 10, 1)),
            layers.Conv3D(4, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling3D(2),
            layers.Conv3D(6, 2),
            layers.AveragePooling3D((1, 2, 2)),
            layers.Conv3DTranspose(3, 2, strides=2),
            layers.UpSampling3D(2),
            layers.GlobalAveragePooling3D(),
            layers.Dense(2),
        ]
    )


def _siamese() -> keras.Model:
    """The same convolution and normalisation twice: a converter that folds into shared weights gets it wrong."""
    a, b = layers.Input((8, 8, 2), name="a"), layers.Input((8, 8, 2), name="b")
    convolution, normalisation = layers.Conv2D(3, 3), layers.BatchNormalization()
    other = layers.BatchNormalization()
    left = normalisation(convolution(a))
    right = other(convolution(b))
    return keras.Model([a, b], layers.Dense(2)(layers.Flatten()(left * right)))


def _sequence() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((12, 3)),
            layers.ZeroPadding1D(1),
            layers.Conv1D(4, 3, dilation_rate=2, padding="causal", activation="swish"),
            layers.SeparableConv1D(6, 3),
            layers.MaxPooling1D(2),
            layers.Conv1DTranspose(3, 3, strides=2),
            layers.UpSampling1D(2),
            layers.GroupNormalization(groups=1),
            layers.PReLU(),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2, activation="tanh"),
        ]
    )


def _grouped() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((9, 9, 4)),
            layers.Conv2D(8, 3, groups=2, strides=2, padding="same"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2, padding="same"),
            layers.LeakyReLU(),
            layers.Cropping2D(1),
            layers.SpatialDropout2D(0.5),
            layers.GaussianNoise(1.0),
            layers.LayerNormalization(),
            layers.Dense(5, activation="gelu"),
            layers.UnitNormalization(),
            layers.Permute((3, 1, 2)),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


ARCHITECTURES: dict[str, tuple[Callable[[], keras.Model], set[str]]] = {
    "attention over a free length": (_attention, set()),
    "attention between two inputs": (_cross_attention, set()),
    "3-D convolutions": (_volume, set()),
    "weights used twice": (_siamese, set()),
    "1-D convolutions": (_sequence, set()),
    "grouped and depthwise convolutions": (_grouped, set()),
    "ConvLSTM2D": (
        lambda: keras.Sequential([layers.Input((5, 8, 8, 2)), layers.ConvLSTM2D(3, 3, return_sequences=True)]),
        {"Loop"},
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_equal_to_keras(name: str) -> None:
    make, loops = ARCHITECTURES[name]
    network = convert(randomise(make()), NAMED, source_sha256="")
    _assert_equal(network)
    assert {"Loop", "Scan", "If"} & set(_operators(network)) == loops


@pytest.mark.parametrize("inner", ["Conv2D", "network", "LSTM"])
def test_a_time_distributed_layer_is_there_once(inner: str) -> None:
    made = {
        "Conv2D": lambda: layers.Conv2D(3, 3),
        "network": lambda: keras.Sequential([layers.Conv2D(3, 3), layers.BatchNormalization(), layers.Flatten()]),
        "LSTM": lambda: layers.LSTM(4),
    }[inner]()
    shape = (6, 2) if inner == "LSTM" else (6, 6, 2)
    model = keras.Sequential([layers.Input((12, *shape)), layers.TimeDistributed(made)])
    network = convert(randomise(model), source_sha256="")
    _assert_equal(network)
    operators = _operators(network)
    assert operators["LSTM" if inner == "LSTM" else "Conv"] == 1
    assert not {"Loop", "Scan"} & set(operators)


def test_a_free_number_of_steps_that_keras_gets_wrong_is_refused() -> None:
    model = keras.Sequential([layers.Input((None, 4)), layers.TimeDistributed(layers.Dense(3), name="steps")])
    keras_traced = tf.function(model, input_signature=[tf.TensorSpec((None, None, 4))])
    assert keras_traced(np.zeros((2, 5, 4), np.float32)).shape == (2, 2, 3), "the batch was taken for the steps"
    with pytest.raises(ConversionError, match=r"^layer steps cannot be exported: .* free number of steps"):
        convert(model, source_sha256="")


def test_a_mask_reaches_the_layer_inside_time_distributed() -> None:
    words = layers.Input((6, 4), dtype="int32")
    embedded = layers.TimeDistributed(layers.Embedding(9, 3))(words)
    steps = layers.Masking()(layers.Reshape((-1, 12))(embedded) * keras.ops.cast(words[:, :, :1] > 4, "float32"))
    model = keras.Model(words, layers.GRU(4)(layers.TimeDistributed(layers.Dense(5))(steps)))
    _assert_equal(convert(randomise(model), source_sha256=""))


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
    _assert_equal(network)
    inputs, outputs = signature(network.graph)
    assert {(t.name, t.dims) for t in inputs} == {("image", (8, 8, 1)), ("age", (1,))}
    assert {(t.name, t.dims) for t in outputs} == {("features", (3,)), ("risk", (2,))}


def test_a_subclassed_model_that_was_never_built_takes_what_the_spec_gives() -> None:
    model = Single()
    given = TensorSpec(name="any", dtype=Datatype.FP32, dims=(4,))
    with pytest.raises(ConversionError, match=r"does not say what it takes: call it on one batch before saving it"):
        convert(model, source_sha256="")
    network = convert(model, Conversion(form=Form.PLAIN, inputs=(given,)), source_sha256="")
    _assert_equal(network)
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
    _assert_equal(network)
    feeds = _feeds(network, 3)
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
    _assert_equal(network)
    feeds = _feeds(network, 3)
    want = model(feeds)
    got = Chain([network.graph])(feeds)
    np.testing.assert_allclose(got["a_output"], want["a"], atol=1e-5)
    np.testing.assert_allclose(got["steps"], want["steps"], atol=1e-5)


def test_a_saved_model_without_a_serving_signature_is_refused(tmp_path: Path) -> None:
    class Bare(tf.Module):  # type: ignore[misc]  # TensorFlow is untyped
        @tf.function(input_signature=[tf.TensorSpec([None, 3])])
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
    _assert_equal(network)


def test_names_that_triton_does_not_take_are_changed() -> None:
    a, b = layers.Input((4,), name="age (years)"), layers.Input((4,), name="输入")
    network = convert(keras.Model([a, b], layers.Dense(2, name="-risk>1")(a + b)), NAMED, source_sha256="")
    inputs, outputs = signature(network.graph)
    assert [t.name for t in (*inputs, *outputs)] == ["age__years_", "__", "_-risk_1"]
    _assert_equal(network)


def test_a_batch_size_that_nothing_depends_on_is_given_up() -> None:
    fixed = layers.Input((8, 8, 1), batch_size=2)
    model = keras.Model(fixed, layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3)(fixed))))
    network = convert(randomise(model), source_sha256="")
    _assert_equal(network, rows=(1, 2, 7))


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
