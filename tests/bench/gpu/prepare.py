"""Put all that ``measure.py`` needs into parts small enough to be carried to a GPU machine that reaches no network.

Run in the development environment, ``PYTHONPATH=tests python tests/bench/gpu/prepare.py``; it downloads
packages and exports models, and writes ``.bundle/`` and ``.parts/`` beside this file. See README.md there.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SPECS = ROOT / "export" / "specs"
LOCK = ROOT / "deploy" / "requirements" / "dev.txt"
REFERENCE = ("chest_xray", "ct_lesion", "ecg_rhythm", "report_triage", "report_impression")
UNET_PIXELS, UNET_FILTERS = 256, (32, 64, 128, 256)
HALF = {"precision": "fp16", "low_precision": {"atol": 0.5, "minimum_agreement": 0.5}}
# Of the lock file, what serving and load testing import; ONNX Runtime is the one for GPUs.
PACKAGES = (
    *("flatbuffers", "grpcio", "hdrhistogram", "ml-dtypes", "msgspec", "numpy", "nvidia-pytriton", "packaging"),
    *("pillow", "protobuf", "pydicom", "python-rapidjson", "tokenizers", "tritonclient", "typing-extensions"),
)
ONNX_RUNTIME = "onnxruntime-gpu==1.31.0"
PLATFORMS = ("2_35", "2_28", "2_27", "2_24", "2_17", "2_12", "2_5")
# Not of the interpreter: what is only for building, for testing, or belongs to the machine it comes from.
NOT_CARRIED = ("__pycache__", "config-*", "ensurepip", "idlelib", "site-packages", "test", "tests", "tkinter", "*.a")
LOG = logging.getLogger("prepare")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the bundle and its parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="of the GPU machine's Triton stub: 3.11 or 3.12")
    parser.add_argument("--part-mib", type=int, default=40, help="largest part")
    parser.add_argument("--models-only", action="store_true", help="for a machine that can install packages itself")
    asked = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    bundle = HERE / ".bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    write_models(bundle / "models")
    if asked.models_only:
        LOG.info("%s is ready", bundle)
        return 0
    write_interpreter(bundle / "python", asked.python)
    write_wheels(bundle / "wheels", asked.python)
    shutil.copy(HERE / "unpack.sh", bundle)
    parts = write_parts(bundle, HERE / ".parts", asked.part_mib * 2**20)
    LOG.info("%d parts of at most %d MiB are in %s", len(parts), asked.part_mib, HERE / ".parts")
    return 0


def write_models(folder: Path) -> None:
    """A repository for each precision, and recurrent layers as native operators and as loops."""
    from bench.gpu.recurrent import write_recurrent  # noqa: PLC0415 - TensorFlow

    for name in REFERENCE:  # the same files that are served elsewhere
        for path in (ROOT / "model_repository").glob(f"{name}*"):
            if path.name == name or path.name.removeprefix(f"{name}_") in {"pipeline", "tokenize", "detokenize"}:
                shutil.copytree(path, folder / "fp32" / path.name)
    for network in ("densenet", "unet"):
        _export(_large(network), folder / "fp32")
        _export(_large(network) | {"serving": HALF}, folder / "fp16")
    for name in REFERENCE:
        spec = yaml.safe_load((SPECS / f"{name}.yaml").read_text(encoding="utf-8"))
        if spec["task"] != "text_generation":  # which the exporter does not lower
            _export(spec | {"serving": HALF}, folder / "fp16")
    write_recurrent(folder / "recurrent")


def _large(name: str) -> dict[str, Any]:
    """A spec of a network that keeps a GPU at work, with random weights."""
    like = "ct_hemorrhage" if name == "densenet" else "ct_lesion"
    spec: dict[str, Any] = yaml.safe_load((SPECS / f"{like}.yaml").read_text(encoding="utf-8"))
    size = 224 if name == "densenet" else UNET_PIXELS
    del spec["training"]
    return spec | {"name": name, "model": "", "input": spec["input"] | {"rows": size, "columns": size}}


def _export(spec: dict[str, Any], repository: Path) -> None:
    from radserve_export.from_keras._tensorflow import keras  # noqa: PLC0415 - slow
    from radserve_export.from_keras.training.ct_lesion import build_network  # noqa: PLC0415 - likewise
    from radserve_export.pipeline import export  # noqa: PLC0415 - likewise

    name, classes, size = spec["name"], len(spec["labels"]), spec["input"].get("rows")
    LOG.info("exporting %s to %s", name, repository.name)
    spec = {key: value for key, value in spec.items() if key not in {"evaluation", "evidence"}}
    with tempfile.TemporaryDirectory() as made:
        if not spec["model"]:
            keras.utils.set_random_seed(1)
            if name == "densenet":
                network = keras.applications.DenseNet121(weights=None, input_shape=(size, size, 1), classes=classes)
            else:
                network = build_network((size, size, 1), 1 + classes, UNET_FILTERS)
                # Of random weights, no two precisions would give each pixel the same label.
                network.get_layer("probabilities").bias.assign([100.0] + [0.0] * classes)
            network.save(f"{made}/network.keras")
        spec["model"] = str(SPECS / spec["model"]) if spec["model"] else f"{made}/network.keras"
        if "tokenizer" in spec:
            spec["tokenizer"] = str(SPECS / spec["tokenizer"])
        path = Path(made, "spec.yaml")
        path.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
        export(path, repository)


def write_interpreter(folder: Path, version: str) -> None:
    """Python itself: Triton's stub needs its shared library, which many machines lack."""
    from support.thin import interpreter  # noqa: PLC0415 - alone here

    found = interpreter(version)
    if found is None:
        sys.exit(f"prepare.py: there is no Python {version} here: install one that was built with --enable-shared")
    told = subprocess.run(  # noqa: S603 - an interpreter
        [found, "-c", "import pip, sys; print(sys.base_prefix); print(pip.__path__[0])"],
        check=True,
        capture_output=True,
        text=True,
    )
    prefix, pip = map(Path, told.stdout.split())
    library = prefix / "lib" / f"libpython{version}.so.1.0"
    if not library.is_file():
        sys.exit(f"prepare.py: {library} is missing: use a Python {version} that was built with --enable-shared")
    stdlib = f"lib/python{version}"
    shutil.copytree(prefix / stdlib, folder / stdlib, ignore=shutil.ignore_patterns(*NOT_CARRIED))
    shutil.copytree(pip, folder / stdlib / "site-packages" / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(library, folder / "lib")
    (folder / "bin").mkdir()
    shutil.copy(prefix / "bin" / f"python{version}", folder / "bin")
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(f"python{version}")


def write_wheels(folder: Path, version: str) -> None:
    """The packages, in the lock file's versions."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    wanted = [ONNX_RUNTIME, *(f"{name}=={pinned[name]}" for name in PACKAGES)]
    platforms = [f"--platform=manylinux_{one}_x86_64" for one in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={version}", "--implementation=cp", *platforms]
    LOG.info("downloading %d packages", len(wanted))
    subprocess.run([*command, "--platform=manylinux2014_x86_64", "-d", str(folder), *wanted], check=True)  # noqa: S603 - pip


def write_parts(bundle: Path, folder: Path, largest: int) -> list[Path]:
    """Cut the bundle into numbered folders, each with one part, the first also with the script that puts them together.

    Args:
        bundle: What is cut.
        folder: Where the folders ``01``, ``02`` … are made; what was there is removed.
        largest: Bytes of a part.

    Returns:
        The parts.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    whole = folder / "whole.tar.gz"
    with tarfile.open(whole, "w:gz", compresslevel=1) as archive:  # wheels are compressed already
        archive.add(bundle, arcname=".")
    parts: list[Path] = []
    sums = []
    with whole.open("rb") as stream:
        while content := stream.read(largest):
            part = folder / f"{len(parts) + 1:02}" / f"part-{len(parts) + 1:02}"
            part.parent.mkdir()
            part.write_bytes(content)
            parts.append(part)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {part.name}\n")
    whole.unlink()
    shutil.copy(bundle / "unpack.sh", parts[0].parent)
    (parts[0].parent / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    return parts


if __name__ == "__main__":
    sys.exit(main())
