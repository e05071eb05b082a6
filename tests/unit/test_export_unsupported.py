"""What of a model cannot be exported: the layer or operation is named, why, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.keras_models import keras, layers

from radserve.errors import ConversionError
from radserve_export.from_keras._tensorflow import tf
from radserve_export.from_keras.convert import convert
from radserve_export.network import Conversion, Form

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMED = Conversion(form=Form.NAMED)
FLOAT32 = "build the model with dtype float32, load the same weights, and save the model again"


def _nested(make: Callable[[Any], Any]) -> keras.Model:
    """What is made of a tensor, two models deep: ``outer/inner/...``."""
    deep, middle, taken = keras.Input((4, 4)), keras.Input((4, 4)), keras.Input((4, 4))
    inner = keras.Model(deep, make(layers.Dense(4, name="first")(deep)), name="inner")
    outer = keras.Model(middle, layers.Dense(4)(inner(middle)), name="outer")
    return keras.Model(taken, outer(taken), name="whole")


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
def test_a_layer_that_computes_in_what_onnx_runtime_does_not_is_named(dtype: str) -> None:
    model = _nested(layers.Dense(4, dtype=dtype, name="half"))
    with pytest.raises(ConversionError) as caught:
        convert(model, NAMED, source_sha256="")
    why = "it computes in bfloat16, which ONNX Runtime does not"
    assert str(caught.value) == f"layer outer/inner/half cannot be exported: {why}: {FLOAT32}"


def test_of_a_model_all_in_bfloat16_the_first_layer_is_named() -> None:
    parts = [layers.Dense(3, dtype="bfloat16", name=name) for name in ("a", "b")]
    model = keras.Sequential([layers.Input((4,)), *parts])
    with pytest.raises(ConversionError, match=r"^layer a cannot be exported: it computes in bfloat16"):
        convert(model, NAMED, source_sha256="")


def test_an_operation_that_casts_to_what_cannot_be_computed_is_named() -> None:
    taken = keras.Input((4,))
    model = keras.Model(taken, keras.ops.cast(layers.Dense(2)(taken), "bfloat16"))
    with pytest.raises(ConversionError, match=r"^operation cast\w* cannot be exported: it computes in bfloat16"):
        convert(model, NAMED, source_sha256="")


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64"])
def test_an_input_of_what_cannot_be_served_is_named(dtype: str) -> None:
    taken = keras.Input((4,), dtype=dtype, name="signal")
    model = keras.Model(taken, keras.ops.cast(taken, "float32"))
    with pytest.raises(ConversionError, match=rf"^input signal has elements of type {dtype}, which cannot be served"):
        convert(model, NAMED, source_sha256="")


def test_an_output_of_what_cannot_be_served_is_named() -> None:
    taken = keras.Input((4,), name="signal")
    model = keras.Model(taken, keras.ops.cast(taken, "complex64"))
    with pytest.raises(
        ConversionError, match=r"^output cast\w* has elements of type complex64, which cannot be served"
    ):
        convert(model, NAMED, source_sha256="")


@pytest.mark.parametrize(
    ("operation", "name", "operator"),
    [
        (lambda x: keras.ops.fft((x, x))[0], "fft", "Complex"),
        (lambda x: keras.ops.relu(keras.ops.erfinv(x)), "erfinv", "Erfinv"),
        (lambda x: keras.ops.eigh(x)[0][:, None] + x, "eigh", "SelfAdjointEigV2"),
    ],
)
def test_an_operation_between_layers_is_named_with_its_path(operation: Any, name: str, operator: str) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(_nested(operation), NAMED, source_sha256="")
    path, _, why = str(caught.value).partition(" cannot be exported: ")
    assert path.rstrip("_0123456789") == f"operation outer/inner/{name}"
    assert why == f"there is no ONNX operator for {operator}"


def test_an_operation_that_raises_while_it_is_traced_is_named() -> None:
    taken = keras.Input((4, 4))
    negated = keras.ops.negative(layers.Dense(4, name="first")(taken))
    model = keras.Model(taken, negated)

    def call(*_: Any) -> Any:
        message = "only on Tuesdays"
        raise RuntimeError(message)

    negative = model.operations[-1]
    negative.call = call
    with pytest.raises(ConversionError, match=r"^operation negative\w* cannot be exported: RuntimeError: only on Tues"):
        convert(model, NAMED, source_sha256="")


def test_operations_are_as_they_were_after_a_conversion() -> None:
    model = _nested(lambda x: keras.ops.relu(x) + 1)
    convert(model, NAMED, source_sha256="")
    inner = model.get_layer("outer").get_layer("inner")
    assert [vars(operation).get("call") for operation in inner.operations] == [None] * 4


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dropout(0.5, name="it"),
        layers.GaussianNoise(0.5, name="it"),
        layers.BatchNormalization(name="it"),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True, dropout=0.5), name="it"),
        keras.Sequential([layers.Input((4, 4)), layers.Dropout(0.5)], name="it"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_called_in_training_is_named_also_when_read_from_a_file(tmp_path: Path, layer: Any) -> None:
    _nested(lambda x: layer(x, training=True)).save(tmp_path / "m.keras")
    model = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    with pytest.raises(ConversionError, match=r"^layer outer/inner/it cannot be exported: it is called with training="):
        convert(model, NAMED, source_sha256="")


@pytest.mark.parametrize("training", [False, None])
def test_a_layer_not_called_in_training_is_exported(training: object) -> None:
    convert(_nested(lambda x: layers.Dropout(0.5)(x, training=training)), NAMED, source_sha256="")


class AlwaysNoisy(keras.layers.Layer):  # type: ignore[misc] # Keras has no types
    """Draws whether it is trained or not."""

    def __init__(self, draw: Callable[..., Any], **options: Any) -> None:
        super().__init__(**options)
        self.draw = draw
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, taken: Any) -> Any:
        return taken + self.draw(keras.ops.shape(taken), seed=self.seeds)


class Stateful(keras.layers.Layer):  # type: ignore[misc] # as above
    """Draws as TensorFlow 1 did, which ONNX has an operator for."""

    def call(self, taken: Any) -> Any:
        return taken + tf.random.uniform(tf.shape(taken))


@pytest.mark.parametrize(
    ("layer", "operator"),
    [
        (AlwaysNoisy(keras.random.uniform, name="it"), "StatelessRandomUniformV2"),
        (AlwaysNoisy(keras.random.normal, name="it"), "StatelessRandomNormalV2"),
        (AlwaysNoisy(keras.random.truncated_normal, name="it"), "StatelessTruncatedNormalV2"),
        (Stateful(name="it"), "RandomUniform"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_layer_that_draws_outside_of_training_is_named(layer: Any, operator: str) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(_nested(layer), NAMED, source_sha256="")
    path, _, why = str(caught.value).partition(" cannot be exported: ")
    assert path == "layer outer/inner/it"
    assert why.startswith(f"it draws random numbers ({operator}")
    assert why.endswith("draws in training alone, load the same weights, and save it again")
