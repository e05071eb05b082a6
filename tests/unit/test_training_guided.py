"""Training that says where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from radserve_export.from_keras._tensorflow import keras, tf
from radserve_export.from_keras.evidence import GradCam
from radserve_export.from_keras.training import Dataset, _guided, _images
from radserve_export.from_keras.training.chest_xray import build_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 14


def spots(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Images of two classes, bright or dark spots, and where the spots lie."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    places = np.zeros((count, SIZE, SIZE), np.float32)
    for one, (row, column) in zip(places, rng.integers(4, SIZE - 6, (count, 2)), strict=True):
        one[row : row + 3, column : column + 3] = 1
    images = places * np.where(labels, 1, -1)[:, np.newaxis, np.newaxis] + rng.normal(0, 0.1, places.shape)
    return images[..., np.newaxis].astype(np.float32), labels, places


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    made = build_network((SIZE, SIZE, 1), 2)
    made.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    return made


def share_in_place(model: keras.Model) -> float:
    images, _, places = spots(60)
    values = GradCam(model, ends_in_activation=True)
    _, maps = tf.function(lambda x: values.original([x, tf.one_hot(tf.argmax(model(x), axis=-1), 2)]))(images)
    cells = _guided._at_cells(places, maps, (3.0, 3.0, SIZE - 3.0, SIZE - 3.0)).numpy()
    largest = maps.numpy().reshape(len(maps), -1).argmax(axis=-1)
    return float((cells.reshape(len(cells), -1)[np.arange(len(cells)), largest] > 0.5).mean())


def test_places_are_taken_at_the_centres_of_the_cells() -> None:
    places = np.random.default_rng(0).uniform(size=(2, 28, 28)).astype(np.float32)
    cells = _guided._at_cells(tf.constant(places), tf.zeros((2, 11, 11)), (3.0, 3.0, 25.0, 25.0)).numpy()
    around = places[:, 3:25, 3:25].reshape(2, 11, 2, 11, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(cells, around, atol=1e-5)


def test_the_map_learns_where_to_look_and_the_network_what_it_is() -> None:
    model = network()
    images, labels, places = spots(60)
    before = share_in_place(model)
    step = _guided.guided_step(model, 0.3)
    for _ in range(80):
        step(images, labels, places)
    assert before < 0.5
    assert share_in_place(model) >= 0.9
    assert (model.predict(images, verbose=0).argmax(axis=-1) == labels).all()


def test_an_image_without_a_place_is_not_told_where_to_look() -> None:
    support = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32))
    np.testing.assert_array_equal(_guided._misplaced(support, tf.zeros((3, 4, 4))), np.zeros(3))


def test_a_users_own_images_are_learnt_without_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_images, "guided_step", lambda *_: pytest.fail("nobody knows where the lesions are"))
    images, labels, _ = spots(12)
    recipe = _images.Recipe(
        build=build_network, images_seen=12, epochs=(1, 1), weight_decay=0.0, shift=1, is_mirrored=False, guidance=0.3
    )
    _images._fit(network(), Dataset(x=images, y=labels), lambda *_: None, recipe)


def test_places_move_with_their_images() -> None:
    images, _, places = spots(20)
    recipe = _images.Recipe(
        build=build_network, images_seen=1, epochs=(1, 1), weight_decay=0.0, shift=2, is_mirrored=True
    )
    changed, moved = _images._augment(np.abs(images), places, np.random.default_rng(5), recipe)
    assert moved is not None
    assert not np.array_equal(moved, places)
    for image, place in zip(changed[..., 0], moved, strict=True):
        assert image[place > 0].mean() > image[place == 0].mean() + 0.5
