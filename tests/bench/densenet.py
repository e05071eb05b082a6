"""A DenseNet121 of 224 x 224 pixels, untrained: a network that costs more than its requests.

Run as a program it is exported into the folder named, for who must not load TensorFlow.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def export_densenet(folder: Path) -> Path:
    """Export it as ``densenet``, which takes what ct_hemorrhage takes; returns the repository in the folder."""
    import keras  # noqa: PLC0415 - imported by who never calls this, too
    import yaml  # noqa: PLC0415

    from radserve_export.pipeline import export  # noqa: PLC0415

    spec = yaml.safe_load((ROOT / "export" / "specs" / "ct_hemorrhage.yaml").read_text(encoding="utf-8"))
    keras.utils.set_random_seed(0)
    network = keras.applications.DenseNet121(weights=None, input_shape=(224, 224, 1), classes=len(spec["labels"]))
    network.save(folder / "densenet.keras")
    spec = {name: value for name, value in spec.items() if name not in {"training", "evaluation", "reference"}}
    spec |= {"name": "densenet", "model": "densenet.keras", "input": {**spec["input"], "rows": 224, "columns": 224}}
    (folder / "densenet.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    export(folder / "densenet.yaml", folder / "densenet")
    return folder / "densenet"


if __name__ == "__main__":
    export_densenet(Path(sys.argv[1]))
