"""The files of ``deploy/`` as their readers see them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CRDS = Path(__file__).parent / "crds"


def versions() -> dict[str, str]:
    """``deploy/versions/versions.env``."""
    lines = (DEPLOY / "versions" / "versions.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def tool(name: str) -> str:
    """A development tool: beside the interpreter, or on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed: make setup"
    return found


def run(*command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a tool; unless told otherwise it must succeed."""
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def substituted(text: str, values: Mapping[str, str]) -> str:
    """``${NAME}``, ``${NAME:?}`` and ``${NAME:-default}`` as Docker Compose replaces them."""

    def value(found: re.Match[str]) -> str:
        name, operator, default = found.groups()
        if name in values:
            return values[name]
        assert operator == ":-", f"{name} has neither value nor default"
        return str(default)

    return re.sub(r"\$\{(\w+)(?:(:[?-])([^}]*))?\}", value, text)


def compose() -> dict[str, Any]:
    """``deploy/compose.yaml`` with its versions."""
    loaded: dict[str, Any] = yaml.safe_load(substituted((DEPLOY / "compose.yaml").read_text(), versions()))
    return loaded


@cache
def rendered(path: str) -> str:
    """What ``kubectl kustomize`` makes of a folder of ``deploy/kubernetes``."""
    return run(kubectl(), "kustomize", DEPLOY / "kubernetes" / path).stdout


def kubectl() -> str:
    """The real kubectl, whose kustomize is that of the deployment."""
    return tool("kubectl")


@cache
def objects(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Rendered objects by kind and name; what kustomize appends to a name, its hash, is left out."""
    found = list(_parsed(text))
    return {(one["kind"], re.sub(r"-[a-z0-9]{10}$", "", one["metadata"]["name"])): one for one in found}


def problems(text: str, folder: Path) -> str:
    """What kubernetes-validate, or of custom resources their schema here, has to say of rendered objects."""
    told = ""
    known: list[dict[str, Any]] = []
    custom: list[dict[str, Any]] = []
    for one in _parsed(text):
        (custom if (CRDS / f"{one['kind']}.json").is_file() else known).append(one)
    file = folder / "known.yaml"
    file.write_text(yaml.safe_dump_all(known))
    done = run(tool("kubernetes-validate"), "--strict", "--quiet", file, check=False)
    told += done.stdout + done.stderr
    for one in custom:
        file = folder / "custom.yaml"
        file.write_text(yaml.safe_dump(one))
        schema = CRDS / f"{one['kind']}.json"
        done = run(tool("check-jsonschema"), "--schemafile", schema, file, check=False)
        told += (done.stdout + done.stderr) * (done.returncode != 0)
    return told


def _parsed(text: str) -> Iterator[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yield from yaml.load_all(text, loader)
