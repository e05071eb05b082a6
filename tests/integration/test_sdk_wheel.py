"""The wheel, installed alone as a hospital does, asks a real Triton."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.thin import build_wheel, install, interpreter

from radserve import Classification, Client
from radserve_export.synthetic import Split, generate

if TYPE_CHECKING:
    from pathlib import Path

    from radserve_server import EmbeddedServer

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
# No wheel of numpy 1.26 is for Python 3.13.
CELLS = [
    (python, numpy)
    for python in ("3.10", "3.11", "3.12", "3.13")
    for numpy in ("numpy<2", "numpy>=2")
    if (python, numpy) != ("3.13", "numpy<2")
]
ASK = """
import importlib.util, sys
import numpy
from radserve import Client

heavy = ["tensorflow", "keras", "onnx", "onnxruntime", "tokenizers", "rich", "typer", "gdcm", "highdicom"]
assert not [name for name in heavy if importlib.util.find_spec(name)], "a thin installation has none of them"
with Client(sys.argv[1]) as client:
    print(numpy.__version__, client.model("chest_xray").predict(sys.argv[2]).to_json())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.mark.parametrize(
    ("python", "numpy"),
    [
        pytest.param(*cell, marks=[] if cell == (HERE, "numpy>=2") else pytest.mark.full, id=" ".join(cell))
        for cell in CELLS
    ],
)
def test_the_wheel_alone_answers_as_the_development_environment_does(
    tmp_path: Path, wheel: Path, reference_server: EmbeddedServer, python: str, numpy: str
) -> None:
    found = interpreter(python)
    if found is None:
        pytest.skip(f"this machine has no Python {python}")
    inside = install(wheel, tmp_path / "environment", python=found, requirements=(numpy,))
    file = tmp_path / "image.dcm"
    source = next(generate("chest_xray", 1, seed=3, split=Split.TEST)).source
    assert isinstance(source, bytes)
    file.write_bytes(source)
    command = [str(inside), "-I", "-c", ASK, reference_server.grpc_url, str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - the environment just made
    assert done.returncode == 0, done.stderr
    version, _, answer = done.stdout.partition(" ")
    assert (int(version.split(".")[0]) < 2) == (numpy == "numpy<2")
    with Client(reference_server.grpc_url) as client:
        expected = client.model("chest_xray", Classification).predict(source)
    told = {one["label"]: one["probability"] for one in json.loads(answer)["findings"]}
    assert told == pytest.approx({one.label: one.probability for one in expected.findings}, abs=1e-6)
