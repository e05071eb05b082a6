"""The image's build stage, run here step by step: what it installs is enough for probes, checks and python steps."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.deployment import DEPLOY, ROOT, run
from support.thin import interpreter

if TYPE_CHECKING:
    from pathlib import Path

    from radserve_server import EmbeddedServer

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]
_TOKENIZER = ROOT / "model_repository" / "report_triage_tokenize" / "1" / "tokenizer.json"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a file system with what the build stage put into /opt."""
    python = interpreter("3.12")
    if python is None:
        pytest.skip("Triton's image has Python 3.12, this machine has none")
    root = tmp_path_factory.mktemp("image")
    (root / "bin").mkdir()
    (root / "bin" / "python3").symlink_to(python)
    text = (DEPLOY / "docker" / "Dockerfile").read_text().split("\nFROM ")[1].replace("\\\n", "")
    for line in text.splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword == "COPY":
            *sources, target = rest.split()
            for source in sources:
                _copy(ROOT / source, root / "src" / (target if target != "./" else source.rpartition("/")[2]))
        elif keyword == "RUN":
            script = re.sub(r"(?<=\s)/opt", f"{root}/opt", rest)
            environment = os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}"}
            done = subprocess.run(  # noqa: S603 - this project's own
                ["/bin/sh", "-ec", script],
                cwd=root / "src",
                env=environment,
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
    return root


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def test_manifests_can_be_verified(image: Path) -> None:
    assert (
        "9 models" in run(image / "opt/radserve/bin/radserve", "check", "--manifests", ROOT / "model_repository").stdout
    )


def test_every_model_can_be_asked(image: Path, reference_server: EmbeddedServer) -> None:
    done = run(image / "opt/radserve/bin/radserve", "health", "--url", reference_server.grpc_url)
    assert done.stdout.count(" answers (") == 9


@pytest.mark.parametrize("module", ["radserve_server.probe", "radserve_server.compare"])
def test_what_the_pods_run_can_be_imported(image: Path, module: str) -> None:
    run(image / "opt/radserve/bin/python", "-c", f"import {module}")


def test_the_python_steps_find_what_they_import_and_nothing_else(image: Path) -> None:
    folder = image / "opt/steps"
    assert {entry.name for entry in folder.iterdir() if not re.search(r"(-info|\.libs)$|^bin$", entry.name)} == {
        "numpy",
        "tokenizers",
    }
    code = (
        f"from tokenizers import Tokenizer; print(len(Tokenizer.from_file({str(_TOKENIZER)!r}).encode('no').ids) > 0)"
    )
    isolated = f"import sys; sys.path.insert(0, {str(folder)!r}); import numpy; {code}"
    assert run(image / "bin/python3", "-I", "-c", isolated).stdout == "True\n"


def test_neither_tensorflow_nor_triton_nor_onnx_is_installed_again(image: Path) -> None:
    (packages,) = (image / "opt/radserve/lib").glob("python3.*/site-packages")
    names = {entry.name.lower() for entry in packages.iterdir()}
    assert not names & {"tensorflow", "onnx", "onnxruntime", "pytriton", "keras", "tf2onnx"}
