"""Evidence maps: Grad-CAM (Selvaraju et al., ICCV 2017) as part of the served graph.

The map is ``relu(sum over channels of weight * feature)`` of what the last
convolution puts out, divided by its largest value; a channel's weight is the
mean over the places of the gradient of a label's logit. Which label that is
the network is told (EXPLAINED): whoever has the probabilities says it. The
last convolution is the last one run whose result has more than one place and
reaches the logits: those behind a global pooling, or in a branch that counts
channels, show no place.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from radserve_export.from_keras._tensorflow import keras, tf
from radserve_export.from_keras.gradients import convertible_gradients
from radserve_export.from_keras.receptive_field import covered_region
from radserve_export.from_keras.signature import call
from radserve_export.from_keras.tracing import failure, path_of_scope
from radserve_export.graphs.evidence import EXPLAINED, describe_evidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from radserve.contracts import TensorSpec
    from radserve_export.from_keras.receptive_field import Region

_LAYERS = keras.layers
_CONVOLUTIONS = (
    _LAYERS.Conv2D,
    _LAYERS.Conv2DTranspose,
    _LAYERS.DepthwiseConv2D,
    _LAYERS.SeparableConv2D,
)
_ACTIVATIONS = ("Softmax", "Sigmoid")
_UNCHANGED = ("Identity", "Cast", "Reshape")
_IMAGE_RANK = 4


def _sized(specs: Mapping[str, tf.TensorSpec], given: Sequence[TensorSpec]) -> dict[str, tf.TensorSpec]:
    """Inputs of the size that they are fed in, where the model leaves it free: a map has one size.

    Args:
        specs: What the model takes, the batch axis in front.
        given: What it will be fed, without it; nothing where nobody says.
    """
    if not given:
        return dict(specs)
    found = {}
    for (name, spec), fed in zip(specs.items(), given, strict=True):
        shape = tf.TensorShape([None, *(None if dim < 0 else dim for dim in fed.dims)])
        # What contradicts the model is told by whoever compares it with the spec.
        fits = spec.shape.is_compatible_with(shape)
        found[name] = tf.TensorSpec(spec.shape.merge_with(shape) if fits else spec.shape, spec.dtype)
    return found


class GradCam:
    """Answers as a classifier does, with the evidence map beside.

    Args:
        model: One input ``(batch, rows, columns, channels)``, one output ``(batch, labels)``.
        ends_in_activation: Whether it gives probabilities, whose logits are to be found.
    """

    def __init__(self, model: keras.Model, *, ends_in_activation: bool) -> None:
        self._model = model
        self._ends_in_activation = ends_in_activation
        self._layer = ""
        self._region: Region | None = None

    def inputs(self, specs: Mapping[str, tf.TensorSpec], given: Sequence[TensorSpec]) -> dict[str, tf.TensorSpec]:
        """What ``served`` and ``original`` take: the model's own input, in one size, and EXPLAINED.

        Args:
            specs: What the model takes, the batch axis in front.
            given: What it will be fed, without it; nothing where nobody says.
        """
        labels = self._model.outputs[0].shape[-1]
        return _sized(specs, given) | {EXPLAINED: tf.TensorSpec([None, labels], tf.float32)}

    def served(self, arrays: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The network's output and the map, to be traced for conversion.

        Args:
            arrays: The images, and how much of each label's logit to explain ``(batch, labels)``.

        Raises:
            ConversionError: There is no convolution to show, or no logits.
        """
        image, explained = arrays
        with _recording(self._model) as features, convertible_gradients():
            (output,) = call(self._model, [image])
            logits = self._logits(output)
        for feature in reversed(self._candidates(features, output)):
            (gradient,) = tf.gradients(logits, feature, grad_ys=explained)
            if gradient is not None:
                self._layer = path_of_scope(self._model, feature.op.name)
                self._region = covered_region(feature, image)
                return [output, _map(feature, gradient)]
        raise failure(self._model, "", "evidence: no convolution's map reaches its output")

    def original(self, arrays: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The same by TensorFlow's own GradientTape, to compare with."""
        output, _, feature, gradient = self._by_tape(*arrays)
        return [output, _map(feature, gradient)]

    def trainable(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Region]:
        """What a training can have a say in.

        Args:
            images: ``(batch, rows, columns, channels)``.
            labels: ``(batch,)``.

        Returns:
            The logits; the map of the given labels before ReLU and without normalisation;
            and the part of the image that it covers.
        """
        _, logits, feature, gradient = self._by_tape(images, tf.one_hot(labels, self._model.outputs[0].shape[-1]))
        rows, columns = images.shape[1:3]
        region = covered_region(feature, images) or (0.0, 0.0, float(rows), float(columns))
        return logits, _support(feature, gradient), region

    def _by_tape(self, images: tf.Tensor, explained: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Output, logits, what the last convolution gives, and the gradient there of the explained logits."""
        with tf.GradientTape() as tape:
            with _recording(self._model, tape) as features:
                (output,) = call(self._model, [images])
            logits = self._logits(output)
            chosen = tf.reduce_sum(logits * explained, axis=-1)
        candidates = self._candidates(features, output)
        gradients = tape.gradient(chosen, candidates)
        feature, gradient = [pair for pair in zip(candidates, gradients, strict=True) if pair[1] is not None][-1]
        return output, logits, feature, gradient

    def describe(self, graph: onnx.ModelProto) -> None:
        """Write into the converted graph which convolution its map shows, and where that lies."""
        describe_evidence(graph, self._layer, self._region)

    def _candidates(self, features: Sequence[tf.Tensor], output: tf.Tensor) -> list[tf.Tensor]:
        """What convolutions gave, in the order in which they ran, as far as it has places."""
        inside = [feature for feature in features if feature.graph is not output.graph]
        if inside:
            where = path_of_scope(self._model, inside[-1].op.name)
            raise failure(self._model, where, "evidence: it runs inside a loop or a branch, where no map can be taken")
        maps = [feature for feature in features if feature.shape[1:3].is_fully_defined()]
        free = [feature for feature in features if not feature.shape[1:3].is_fully_defined()]
        if free:
            where = path_of_scope(self._model, free[-1].op.name)
            raise failure(self._model, where, "evidence: the size of its map is free: build the model for one size")
        maps = [feature for feature in maps if feature.shape[1:3].num_elements() > 1]
        if not maps:
            raise failure(self._model, "", "evidence: it has no two-dimensional convolution whose result has places")
        return maps

    def _logits(self, output: tf.Tensor) -> tf.Tensor:
        """What the probabilities were before softmax or sigmoid, ``(batch, labels)`` float32."""
        if len(output.shape) != 2:  # noqa: PLR2004 - batch and labels
            raise failure(self._model, "", f"evidence: it gives {output.shape}, not one value for each label")
        found = output
        while self._ends_in_activation and found.op.type not in _ACTIVATIONS:
            if found.op.type not in _UNCHANGED:
                where = path_of_scope(self._model, found.op.name)
                reason = (
                    f"evidence: the probabilities come from {found.op.type}, not from softmax or sigmoid:"
                    " let the model give logits, and say network_output: logits"
                )
                raise failure(self._model, where, reason)
            found = found.op.inputs[0]
        if self._ends_in_activation:
            found = tf.reshape(found.op.inputs[0], tf.shape(output))
        return tf.cast(found, tf.float32)


def _support(feature: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """How much each place speaks for the label, or against it: ``(batch, rows, columns)`` float32."""
    weights = tf.reduce_mean(tf.cast(gradient, tf.float32), axis=(1, 2), keepdims=True)
    return tf.reduce_sum(tf.cast(feature, tf.float32) * weights, axis=-1)


def _map(feature: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Grad-CAM ``(batch, rows, columns)`` float32, from 0 to 1."""
    positive = tf.nn.relu(_support(feature, gradient))
    largest = tf.reduce_max(positive, axis=(1, 2), keepdims=True)
    return positive / tf.where(largest > 0, largest, 1.0)


@contextmanager
def _recording(model: keras.Model, tape: tf.GradientTape | None = None) -> Iterator[list[tf.Tensor]]:
    """Collect what the convolutions of a model put out while it is called."""
    found: list[tf.Tensor] = []
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, _CONVOLUTIONS)]  # noqa: SLF001 - as in tracing.py

    def recorded(original: Any) -> Any:  # noqa: ANN401 - any layer's call
        def call_(*args: Any, **options: Any) -> tf.Tensor:  # noqa: ANN401 - as above
            result = original(*args, **options)
            if len(result.shape) == _IMAGE_RANK:
                found.append(result)
                if tape is not None:
                    tape.watch(result)
            return result

        return call_

    try:
        for layer in layers:
            layer.call = recorded(layer.call)
        yield found
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)
