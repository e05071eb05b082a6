"""The three architectures of the reference models, untrained, with weights that make outputs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from support.exports import label, write_tokenizer

from radserve_export.from_keras._tensorflow import keras

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "FAMILIES",
    "LEADS",
    "MAX_TOKENS",
    "SAMPLES",
    "chest",
    "ecg",
    "keras",
    "layers",
    "report",
    "vary",
    "write_family",
]

layers = keras.layers
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLES, MAX_TOKENS = 40, 16
WORDS = ("[PAD]", "[UNK]", "no", "pneumothorax", "large", "effusion", "未", "见", "气胸")


def vary(model: keras.Model, seed: int = 0, scale: float = 0.5) -> keras.Model:
    """Give a model weights whose outputs are neither 0 nor 1, biases included."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, scale / np.sqrt(w.shape[0]), w.shape).astype(w.dtype) for w in model.weights])
    return model


def chest() -> keras.Model:
    """The architecture of chest_xray."""
    return vary(
        keras.Sequential(
            [
                layers.Input((28, 28, 1)),
                layers.Conv2D(32, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Conv2D(64, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dense(64, activation="relu"),
                layers.Dense(3, activation="softmax"),
            ]
        ),
        scale=3,
    )


def ecg() -> keras.Model:
    """The architecture of ecg_rhythm."""
    return vary(
        keras.Sequential(
            [
                layers.Input((SAMPLES, len(LEADS))),
                layers.LSTM(64, activation="relu"),
                layers.Dense(64, activation="relu"),
                layers.Dense(3, activation="softmax"),
            ]
        ),
        scale=1.3,
    )


def report() -> keras.Model:
    """The architecture of report_triage."""
    return vary(
        keras.Sequential(
            [
                layers.Input((MAX_TOKENS,), dtype="int32"),
                layers.Embedding(len(WORDS), 128, mask_zero=True),
                layers.LSTM(64, activation="relu"),
                layers.Dense(64, activation="relu"),
                layers.Dense(1, activation="sigmoid"),
            ]
        ),
        scale=1.5,
    )


_INPUTS: dict[str, dict[str, Any]] = {
    "chest": {"kind": "image", "modalities": ["DX"], "rows": 28, "columns": 28, "window": {"kind": "file"}},
    "ecg": {
        "kind": "waveform",
        "modalities": ["ECG"],
        "leads": [
            {"name": lead, "codes": [{"value": f"2:{place}", "scheme": "MDC", "meaning": lead}]}
            for place, lead in enumerate(LEADS, 1)
        ],
        "sampling_frequency_hz": 20,
        "samples": SAMPLES,
    },
    "report": {"kind": "text", "languages": ["en", "zh"], "max_tokens": MAX_TOKENS},
}
_TASKS = {"chest": "image_classification", "ecg": "signal_classification", "report": "text_classification"}
_MODELS = {"chest": chest, "ecg": ecg, "report": report}
FAMILIES = tuple(_MODELS)


def write_family(folder: Path, family: str, *, fuse: bool = True) -> Path:
    """Save a model of a family, its spec and its tokenizer.

    Returns:
        The spec's path; the public model is ``FAMILY_fused`` or ``FAMILY_unfused``.
    """
    name = f"{family}_{'fused' if fuse else 'unfused'}"
    model = folder / f"{family}.keras"
    if not model.exists():
        _MODELS[family]().save(model)
    spec: dict[str, Any] = {
        "name": name,
        "task": _TASKS[family],
        "model": model.name,
        "input": _INPUTS[family],
        "exclusive": family != "report",
        "labels": [label(one) for one in (("critical",) if family == "report" else ("a", "b", "c"))],
        "serving": {"fuse": fuse, "max_batch_size": 16, "instances": {"count": 1}},
    }
    if family == "chest":
        spec["network_input"] = {"scale": 1 / 255}
    elif family == "ecg":
        spec["network_input"] = {"scale": 1 / 32768}
    else:
        spec["tokenizer"] = "tokenizer.json"
        write_tokenizer(folder / "tokenizer.json", WORDS)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))
    return path
