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
from radserve.contracts import EveryImage, ImageInput
from radserve_export.spec import load_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from radserve_server import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
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


def _studies() -> list[str]:
    """The commands on studies, to be run in a folder that holds the checkout's export/ and client/."""
    given = re.findall(r"^```sh\n(.*?)^```", SECTION.partition("**Studies.**")[2], flags=re.MULTILINE | re.DOTALL)[:2]
    return "".join(given).splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for part in ("export", "client"):
        (tmp_path / part).symlink_to(ROOT / part)
    return tmp_path


def _run(command: str, folder: Path) -> str:
    here = Path(sys.executable).parent
    command = re.sub(r"^\.venv(-dev)?/bin/", f"{here}/", command)
    run = subprocess.run(  # noqa: S602 - the README's own commands
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_the_spec_made_for_studies_is_one(checkout: Path) -> None:
    make, *_ = _studies()
    _run(make, checkout)
    spec = load_spec(checkout / "ct_series.yaml")
    assert isinstance(spec.input, ImageInput)
    assert isinstance(spec.input.study, EveryImage)


@pytest.mark.full
def test_a_model_of_studies_is_made_and_asked_as_written(
    checkout: Path, start_server: Callable[..., EmbeddedServer]
) -> None:
    make, export, _serve, generate, copy, predict = _studies()
    for command in (make, export, generate, copy):
        _run(command, checkout)
    server = start_server(checkout / "my_repository")
    told = _run(predict.replace("localhost:8001", server.grpc_url), checkout)
    assert re.search(r"liver: \d+ pixels \(\d+ mm³\)", told)
