"""A new user's story: somebody else's model, and what the README says of exporting it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.applications import application
from support.keras_models import keras

from radserve import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve_server import EmbeddedServer

README = Path(__file__).resolve().parents[2] / "README.md"
SECTION = README.read_text(encoding="utf-8").partition("## Export your own model")[2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("MobileNetV3Small", 64, {"include_preprocessing": False, "minimalistic": True, "alpha": 0.35}),
        pytest.param("ResNet50V2", 224, {}, marks=pytest.mark.full),
    ],
)
def test_somebody_elses_model_is_exported_checked_served_and_called_as_written(
    tmp_path: Path, start_server: Callable[..., EmbeddedServer], name: str, size: int, options: dict[str, Any]
) -> None:
    section = SECTION.replace("resnet50v2", name.lower())
    (spec,) = re.findall(r"^```yaml\n(name: .*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert spec.count("\n") <= 5
    (tmp_path / "my_model.yaml").write_text(spec)
    pixels = np.random.default_rng(0).normal(size=(16, size, size, 3)).astype(np.float32)
    image = keras.Input(pixels.shape[1:], name="image")
    model = keras.Model(image, application(name, pixels, classifier_activation="softmax", **options)(image))
    model.save(tmp_path / f"{name.lower()}.keras")
    commands = re.findall(r"^\.venv-dev/bin/radserve ((?:export|check) .*)", section, flags=re.MULTILINE)[:2]
    for command in commands:
        arguments = shlex.split(command, comments=True)
        run = subprocess.run(  # noqa: S603 - the README's own commands
            [Path(sys.executable).with_name("radserve"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "my_repository: nothing wrong\n"
    (call,) = re.findall(r"`(client\.model\(.*\)\.infer\(.*\))`", section)
    with Client(start_server(tmp_path / "my_repository").grpc_url) as client:
        (answer,) = eval(call, {"client": client, "array": pixels}).values()  # noqa: S307 - the README's own call
    assert np.ptp(answer, axis=0).max() > 1e-3, "images must differ for the comparison to mean something"
    np.testing.assert_allclose(answer, model(pixels, training=False), atol=1e-5, rtol=1e-4)
