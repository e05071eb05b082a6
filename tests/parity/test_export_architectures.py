"""Kinds of layers: each equal to Keras, in a graph as small as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxslim
import pytest
from support.comparison import NAMED, assert_equal, operators
from support.keras_models import keras, layers
from support.weights import randomise

from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import tf
from radserve_export.from_keras.convert import convert

if TYPE_CHECKING:
    from collections.abc import Callable


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
    assert_equal(network)
    assert operators(network)["Transpose"] <= 2
    assert not {"Shape", "Loop", "Slice"} & set(operators(network))


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
    assert_equal(network)
    assert {"Loop", "Scan", "If"} & set(operators(network)) == loops


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
    assert_equal(network)
    found = operators(network)
    assert found["LSTM" if inner == "LSTM" else "Conv"] == 1
    assert not {"Loop", "Scan"} & set(found)


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
    assert_equal(convert(randomise(model), source_sha256=""))


def test_a_graph_that_the_cleaner_fails_on_is_served_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> None:
        raise IndexError

    monkeypatch.setattr(onnxslim, "slim", fail)
    network = convert(randomise(_unet("nearest")), source_sha256="")
    assert_equal(network)
    assert "OnnxSlim cannot clean this graph" in caplog.text
