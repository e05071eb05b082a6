"""A model that reads text itself, exported and served: the answers are those of the whole Keras model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from support.exports import label, write_spec
from support.keras_models import keras, layers, vary

from radserve import Classification, Client
from radserve_export.from_keras._tensorflow import tf
from radserve_export.pipeline import export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from radserve_server import EmbeddedServer

REPORTS = ["No acute disease.", "Large LEFT pneumothorax, 12 mm!", "漢字 never\u00a0seen", "no " * 9]


def test_a_models_own_text_layer_is_served_as_it_answered(
    tmp_path: Path, start_server: Callable[..., EmbeddedServer]
) -> None:
    words = layers.TextVectorization(output_sequence_length=16, name="words")
    words.adapt(REPORTS[:2])
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            words,
            layers.Embedding(30, 8, mask_zero=True),
            layers.LSTM(6),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    for layer in (model.layers[1], model.layers[2], model.layers[3]):
        vary(layer)
    model.save(tmp_path / "reads_text.keras")
    spec: dict[str, Any] = {
        "name": "reads_text",
        "task": "text_classification",
        "model": "reads_text.keras",
        "input": {"kind": "text", "languages": ["en"], "max_tokens": 16},
        "labels": [label("critical")],
    }
    export(write_spec(tmp_path, spec), tmp_path / "models")
    server = start_server(tmp_path / "models")
    with Client(server.grpc_url) as client:
        served_model = client.model("reads_text", Classification)
        served = [served_model.predict(report).top.probability for report in REPORTS]
    expected = model(tf.constant(REPORTS)[:, None]).numpy()[:, 0]
    np.testing.assert_allclose(served, expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3
