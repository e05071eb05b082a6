"""Evidence maps: the served graph's Grad-CAM against one made with Keras and GradientTape alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.keras_models import keras, layers
from support.weights import randomise

from radserve.contracts import EVIDENCE, wire_tensors
from radserve.errors import ConversionError, ParityError
from radserve_export.ensemble import build_steps
from radserve_export.evidence import explained_stages, public_models
from radserve_export.from_keras import evidence, gradients
from radserve_export.from_keras._tensorflow import tf
from radserve_export.from_keras.convert import convert
from radserve_export.graphs import NETWORK_INPUT, NETWORK_OUTPUT
from radserve_export.graphs.checked import Chain
from radserve_export.graphs.evidence import EXPLAINED, evidence_of, most_probable
from radserve_export.network import Conversion, Form
from radserve_export.parity import check_parity
from radserve_export.reference import Reference, parity_stages
from radserve_export.spec import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from radserve_export.network import Network

EXPORT = Path(__file__).resolve().parents[2] / "export"
TOLERANCE = 1e-3
SIZE = 16


def explained(model: keras.Model, *, ends_in_activation: bool = True, **changed: Any) -> Network:
    conversion = Conversion(form=Form.EVIDENCE, ends_in_activation=ends_in_activation, **changed)
    return convert(model, conversion, source_sha256="0" * 64)


def served(network: Network, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The most probable label's map."""
    chosen = most_probable(Chain([network.graph])({NETWORK_INPUT: images})[NETWORK_OUTPUT])
    return Chain([network.parts["evidence"].graph])({NETWORK_INPUT: images, EXPLAINED: chosen})


def by_keras(model: keras.Model, layer: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grad-CAM as Keras' own example has it: a second model to the convolution and, without activation, the logits."""
    linear = keras.models.clone_model(model)
    linear.set_weights(model.get_weights())
    linear.layers[-1].activation = keras.activations.linear
    both = keras.Model(linear.inputs[0], [linear.get_layer(layer).output, linear.outputs[0]])
    with tf.GradientTape() as tape:
        feature, logits = both(tf.constant(images), training=False)
        top = tf.reduce_sum(tf.reduce_max(logits, axis=-1))
    gradient = tape.gradient(top, feature).numpy()
    weights = gradient.mean(axis=(1, 2), keepdims=True)
    positive = np.maximum((feature.numpy() * weights).sum(axis=-1), 0)
    largest = positive.max(axis=(1, 2), keepdims=True)
    found: NDArray[np.float32] = positive / np.where(largest > 0, largest, 1)
    return found


def noise(count: int, *shape: int, seed: int = 0) -> NDArray[np.float32]:
    images = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    images[0] = 0
    return images


def assert_same(model: keras.Model, layer: str, images: NDArray[np.float32]) -> None:
    got, want = served(explained(model), images)[EVIDENCE], by_keras(model, layer, images)
    assert got.shape == want.shape
    assert want.max() == 1, "an empty map would prove nothing"
    assert np.abs(got - want).max() <= TOLERANCE


def test_the_chest_networks_map_is_that_of_keras() -> None:
    model = keras.models.load_model(EXPORT / "trained" / "chest_xray.keras", safe_mode=True)
    images = np.concatenate([noise(8, 28, 28, 1), np.random.default_rng(1).uniform(size=(24, 28, 28, 1))])
    assert_same(model, "conv_2", images.astype(np.float32))


@pytest.mark.full
def test_resnet50v2s_map_is_that_of_keras() -> None:
    model = randomise(keras.applications.ResNet50V2(weights=None, input_shape=(96, 96, 3), classes=5))
    assert_same(model, "conv5_block3_3_conv", noise(6, 96, 96, 3))


def small(*tail: keras.layers.Layer, activation: str | None = None, labels: int = 4) -> keras.Model:
    """A convolution that is the last one, something behind it, and the end of a classifier."""
    return randomise(
        keras.Sequential(
            [
                layers.Input((SIZE, SIZE, 2)),
                layers.Conv2D(6, 3, padding="same", activation="relu"),
                layers.Conv2D(8, 3, padding="same", activation=activation, name="last"),
                *tail,
                layers.Dense(labels, activation="softmax" if labels > 1 else "sigmoid"),
            ]
        )
    )


def pooled(pool: keras.layers.Layer, activation: str) -> keras.Model:
    """The tanh in front weighs places differently: it shows where the pooling's gradient goes."""
    return small(layers.Activation("tanh"), pool, layers.Activation(activation), layers.Flatten())


TAILS: dict[str, Callable[[], keras.Model]] = {
    "flatten": lambda: small(layers.Flatten(), activation="relu"),
    "batch_normalization": lambda: small(layers.BatchNormalization(), layers.ReLU(), layers.GlobalAveragePooling2D()),
    "max_pool": lambda: pooled(layers.MaxPooling2D(2), "relu"),
    "max_pool_overlapping": lambda: pooled(layers.MaxPooling2D(3, 2), "tanh"),
    "max_pool_same": lambda: pooled(layers.MaxPooling2D((3, 2), (2, 3), "same"), "elu"),
    "average_pool": lambda: pooled(layers.AveragePooling2D(3), "relu"),
    "average_pool_overlapping": lambda: pooled(layers.AveragePooling2D(4, 2), "softsign"),
    "average_pool_same": lambda: pooled(layers.AveragePooling2D(3, 2, "same"), "gelu"),
    "global_max": lambda: small(layers.GlobalMaxPooling2D()),
    "dense": lambda: small(layers.GlobalAveragePooling2D(), layers.Dense(9, "selu"), layers.Dense(7, "silu")),
    "dropout": lambda: small(layers.SpatialDropout2D(0.5), layers.GlobalAveragePooling2D(), layers.Dropout(0.5)),
    "layer_normalization": lambda: small(layers.GlobalAveragePooling2D(), layers.LayerNormalization()),
    "sigmoids": lambda: small(
        layers.Activation("sigmoid"), layers.GlobalAveragePooling2D(), layers.Dense(5, "softplus")
    ),
    "leaky": lambda: small(layers.LeakyReLU(0.2), layers.ReLU(6), layers.GlobalAveragePooling2D()),
    "one_label": lambda: small(layers.GlobalAveragePooling2D(), labels=1),
}


@pytest.mark.parametrize("tail", TAILS)
def test_what_follows_the_last_convolution_is_differentiated_exactly(tail: str) -> None:
    assert_same(TAILS[tail](), "last", noise(5, SIZE, SIZE, 2))


def branching() -> keras.Model:
    """Two branches and a shortcut that meet behind the last convolution, and an attention of channels beside it."""
    image = layers.Input((SIZE, SIZE, 2))
    stem = layers.Conv2D(8, 3, activation="relu")(image)
    last = layers.Conv2D(8, 3, padding="same", name="last")(stem)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(last)
    excited = layers.Conv2D(8, 1, activation="sigmoid", name="counts_channels")(squeezed)
    joined = layers.Concatenate()([layers.Multiply()([last, excited]), layers.Add()([last, stem]), stem])
    pooled = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(joined)))
    return randomise(keras.Model(image, layers.Dense(3, activation="softmax")(pooled)))


def test_branches_that_meet_and_attention_to_channels_are_differentiated() -> None:
    network = explained(branching())
    found = evidence_of(network.parts["evidence"].graph)
    assert found is not None
    assert found.layer == "last", "a map of one place shows none"
    assert_same(branching(), "last", noise(5, SIZE, SIZE, 2))


def test_ties_in_a_pooling_go_to_the_first_maximum_as_in_tensorflow() -> None:
    """The weights of the places behind differ, so it shows where a gradient goes."""
    x = tf.constant(np.random.default_rng(0).integers(0, 2, (2, 7, 6, 3)).astype(np.float32))
    kernel = tf.constant(np.random.default_rng(1).normal(size=(4 * 3 * 3, 2)).astype(np.float32))
    image = layers.Input((7, 6, 3))

    class Gradient(layers.Layer):  # type: ignore[misc]  # Keras is untyped
        def call(self, values: Any) -> Any:
            pooled = tf.nn.max_pool2d(values, 3, 2, "SAME")
            return tf.gradients(tf.reshape(pooled, [-1, 36]) @ kernel, values)[0]

    model = keras.Model(image, Gradient()(image))
    network = convert(model, source_sha256="0" * 64)
    got = Chain([network.graph])({NETWORK_INPUT: x.numpy()})[NETWORK_OUTPUT]
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = tf.reshape(tf.nn.max_pool2d(x, 3, 2, "SAME"), [-1, 36]) @ kernel
    np.testing.assert_allclose(got, tape.gradient(out, x), atol=1e-6)


def test_nested_models_are_looked_into() -> None:
    base = keras.Sequential(
        [layers.Input((SIZE, SIZE, 2)), layers.Conv2D(6, 3, name="deep", strides=2), layers.ReLU()], name="base"
    )
    model = randomise(keras.Sequential([base, layers.Flatten(), layers.Dense(3, activation="softmax")]))
    found = evidence_of(explained(model).parts["evidence"].graph)
    assert found is not None
    assert (found.layer, found.rows, found.columns) == ("base/deep", 7, 7)


def headed(*head: keras.layers.Layer) -> keras.Model:
    convolution = layers.Conv2D(8, 3, activation="relu", name="last")
    return randomise(
        keras.Sequential([layers.Input((SIZE, SIZE, 2)), convolution, layers.GlobalAveragePooling2D(), *head])
    )


@pytest.mark.parametrize(
    ("head", "ends_in_activation"),
    [
        ([layers.Dense(3, activation="softmax")], True),
        ([layers.Dense(3, activation="sigmoid")], True),
        ([layers.Dense(3), layers.Softmax()], True),
        ([layers.Dense(3), layers.Activation("sigmoid")], True),
        ([layers.Dense(3)], False),
    ],
)
def test_the_map_is_of_the_logits_wherever_the_activation_is(
    head: list[keras.layers.Layer], *, ends_in_activation: bool
) -> None:
    images = 40 * noise(6, SIZE, SIZE, 2)
    model = headed(*(type(layer).from_config(layer.get_config()) for layer in head))
    plain = headed(layers.Dense(3, activation="linear"))
    plain.set_weights(model.get_weights())
    got = served(explained(model, ends_in_activation=ends_in_activation), images)
    assert np.abs(got[EVIDENCE] - by_keras(plain, "last", images)).max() <= TOLERANCE
    np.testing.assert_allclose(got[NETWORK_OUTPUT], model(images), atol=1e-5)


def test_a_network_that_nothing_speaks_for_has_an_empty_map() -> None:
    model = headed(layers.Dense(3, activation="softmax"))
    model.layers[-1].kernel.assign(-np.abs(model.layers[-1].kernel))
    got = served(explained(model), noise(4, SIZE, SIZE, 2))[EVIDENCE]
    np.testing.assert_array_equal(got, np.zeros_like(got))


def test_a_size_left_free_is_that_of_the_input() -> None:
    image = layers.Input((None, None, 2))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="last")(image))
    model = randomise(keras.Model(image, layers.Dense(2, activation="softmax")(pooled)))
    spec = load_spec(EXPORT / "specs" / "chest_xray.yaml")
    assert spec.input is not None
    (wire,), _ = wire_tensors(spec.task, spec.input, 2)
    sized = type(wire)(name=NETWORK_INPUT, dtype=wire.dtype, dims=(12, 10, 2))
    found = evidence_of(explained(model, inputs=(sized,)).parts["evidence"].graph)
    assert found is not None
    assert (found.rows, found.columns) == (10, 8)
    with pytest.raises(ConversionError, match=r"layer last .* the size of its map is free"):
        explained(model)


REFUSED: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "no convolution": (
        lambda: keras.Sequential([layers.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2, activation="softmax")]),
        "no two-dimensional convolution",
    ),
    "one place": (
        lambda: keras.Sequential(
            [layers.Input((3, 3, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2, activation="softmax")]
        ),
        "no two-dimensional convolution",
    ),
    "another activation": (
        lambda: headed(layers.Dense(3, activation="hard_sigmoid")),
        "layer dense.* not from softmax or sigmoid",
    ),
    "no labels": (
        lambda: keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(2, 3, activation="softmax")]),
        "not one value for each label",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_without_a_map_is_refused_by_name(case: str) -> None:
    build, told = REFUSED[case]
    with pytest.raises(ConversionError, match=told):
        explained(build())


def conv(*args: Any, **options: Any) -> keras.layers.Layer:
    return layers.Conv2D(3, *args, use_bias=False, **options)


GRIDS: dict[str, list[keras.layers.Layer]] = {
    "valid": [conv(3), layers.AveragePooling2D(2), conv(3)],
    "same_with_strides": [conv(3, strides=2, padding="same"), conv(4, strides=2, padding="same")],
    "by_channel": [conv(4), layers.DepthwiseConv2D(3, 2, "same", use_bias=False)],
    "padded": [layers.ZeroPadding2D(((2, 1), (0, 3))), conv(5, strides=3)],
    "resized": [layers.AveragePooling2D((2, 4)), layers.UpSampling2D(2, interpolation="bilinear"), conv(3)],
}


@pytest.mark.parametrize("grid", GRIDS)
def test_the_region_is_where_the_cells_look(grid: str) -> None:
    """With equal weights a cell's centre is the centre of gravity of what it depends on."""
    rows, columns = 32, 24
    model = keras.Sequential([layers.Input((rows, columns, 1)), *GRIDS[grid], layers.GlobalAveragePooling2D()])
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    image = tf.Variable(np.ones((1, rows, columns, 1), np.float32))
    with tf.GradientTape() as tape:
        feature = keras.Model(model.inputs[0], model.layers[-2].output)(image)
        cell = feature.shape[1] // 2, feature.shape[2] // 2
        one = feature[0, cell[0], cell[1], 0]
    seen = tape.gradient(one, image).numpy()[0, ..., 0]
    centre = [
        float((seen.sum(axis=1 - axis) * (np.arange(length) + 0.5)).sum() / seen.sum())
        for axis, length in enumerate((rows, columns))
    ]
    found = evidence_of(explained(model, ends_in_activation=False).parts["evidence"].graph)
    assert found is not None
    assert found.region is not None
    top, left, bottom, right = found.region
    told = (
        top + (cell[0] + 0.5) * (bottom - top) / found.rows,
        left + (cell[1] + 0.5) * (right - left) / found.columns,
    )
    np.testing.assert_allclose(told, centre, atol=1e-4)


def test_a_region_that_cannot_be_said_is_left_out() -> None:
    model = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2DTranspose(2, 2), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()]
    )
    found = evidence_of(explained(model, ends_in_activation=False).parts["evidence"].graph)
    assert found is not None
    assert found.region is None


def gate(network: Network) -> dict[str, Any]:
    """The parity gate on the evidence model of chest_xray."""
    _, spec = public_models(load_spec(EXPORT / "specs" / "chest_xray.yaml"), network)
    assert spec.input is not None
    wire, _ = wire_tensors(spec.task, spec.input, len(spec.labels))
    steps = build_steps(spec, network, wire, None)
    stages = parity_stages(spec, network, steps, Reference(spec, network, None), None)
    found: dict[str, Any] = check_parity(explained_stages(stages, spec, network), spec=spec)["outputs"]
    return found


def test_the_gate_compares_the_map_alone_and_behind_all_graphs() -> None:
    model = keras.models.load_model(EXPORT / "trained" / "chest_xray.keras", safe_mode=True)
    found = gate(explained(model))
    for stage in ("network", "pipeline"):
        assert found[f"{stage}/{EVIDENCE}"]["max_abs"] <= TOLERANCE
        assert found[f"{stage}/{EVIDENCE}"]["atol"] == TOLERANCE


def test_a_wrong_gradient_does_not_pass_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(ctx: Any, node: Any, *_: object) -> None:
        (result,), values = node.output, node.input[0]
        shape, dtype = ctx.get_shape(result), ctx.get_dtype(result)
        ctx.remove_node(node.name)
        ctx.make_node("Identity", [values], outputs=[result], shapes=[shape], dtypes=[dtype])

    monkeypatch.setitem(gradients.HANDLERS, "MaxPoolGrad", (nothing, []))
    model = keras.models.load_model(EXPORT / "trained" / "chest_xray.keras", safe_mode=True)
    with pytest.raises(ParityError, match=r"network: EVIDENCE differs by .* row \d+"):
        gate(explained(model))


def test_a_map_of_probabilities_does_not_pass_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a saturated probability is another one than that of its logit."""
    original = evidence.GradCam.served

    def of_probabilities(self: evidence.GradCam, arrays: Any) -> Any:
        monkeypatch.setattr(self, "_ends_in_activation", False)
        found = original(self, arrays)
        monkeypatch.undo()
        return found

    monkeypatch.setattr(evidence.GradCam, "served", of_probabilities)
    model = keras.models.load_model(EXPORT / "trained" / "chest_xray.keras", safe_mode=True)
    with pytest.raises(ParityError, match="EVIDENCE"):
        gate(explained(model))
