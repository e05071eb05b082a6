"""Training that also says where to look.

A classifier may be right for the wrong reasons, and its evidence map then shows
them. Where it is known in which pixels a label's lesion lies, the map is trained
along with the answer (Li et al., "Tell Me Where to Look: Guided Attention
Inference Network", CVPR 2018): it is the same map that is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from radserve_export.from_keras._tensorflow import keras, tf
from radserve_export.from_keras.evidence import GradCam

if TYPE_CHECKING:
    from collections.abc import Callable

# How sharply the largest value of the map is told from the others.
_SHARPNESS = 20.0
_LEAST = 1e-4


def guided_step(network: keras.Model, weight: float) -> Callable[..., Any]:
    """A step of training in the place of ``train_on_batch``.

    The loss is the cross-entropy of the labels, plus ``weight`` times that of the
    map's largest value lying in the lesion, for images with a lesion.

    Args:
        network: Compiled; a classifier that ends in softmax, without layers that
            behave otherwise in training.
        weight: Of the map's part.

    Returns:
        Takes images ``(batch, rows, columns, channels)``, labels ``(batch,)`` and the
        share of the lesion in each pixel ``(batch, rows, columns)``.
    """
    cam = GradCam(network, ends_in_activation=True)
    channels = network.input_shape[1:]
    signature = [
        tf.TensorSpec((None, *channels), tf.float32),
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((None, *channels[:2]), tf.float32),
    ]

    def step(images: tf.Tensor, labels: tf.Tensor, places: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits, support, region = cam.trainable(images, labels)
            answers = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(answers + weight * _misplaced(support, _at_cells(places, support, region)))
        weights = network.trainable_variables
        network.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    return tf.function(step, input_signature=signature)  # type: ignore[no-any-return]  # TensorFlow is untyped


def _misplaced(support: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the place of the map's largest value, for each row; 0 where there is no lesion."""
    flat, wanted = (tf.reshape(one, [-1, support.shape[1] * support.shape[2]]) for one in (support, inside))
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(flat), axis=-1, keepdims=True))
    chosen = tf.nn.softmax(_SHARPNESS * tf.math.divide_no_nan(flat, largest))
    has_lesion = tf.cast(tf.reduce_max(wanted, axis=-1) > 0, tf.float32)
    return -tf.math.log(tf.reduce_sum(chosen * wanted, axis=-1) + _LEAST) * has_lesion


def _at_cells(places: tf.Tensor, support: tf.Tensor, region: tuple[float, float, float, float]) -> tf.Tensor:
    """The lesion's share at the centres of the map's cells."""
    top, left, bottom, right = region
    high, wide = (bottom - top) / support.shape[1] / 2, (right - left) / support.shape[2] / 2
    # Pixel centres lie at half-integers.
    rows, columns = places.shape[1] - 1, places.shape[2] - 1
    box = [
        (top + high - 0.5) / rows,
        (left + wide - 0.5) / columns,
        (bottom - high - 0.5) / rows,
        (right - wide - 0.5) / columns,
    ]
    count = tf.shape(places)[0]
    boxes = tf.tile(tf.constant([box], tf.float32), [count, 1])
    cells = tf.image.crop_and_resize(places[..., tf.newaxis], boxes, tf.range(count), support.shape[1:3])
    return cells[..., 0]
