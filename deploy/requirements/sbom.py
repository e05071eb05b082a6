"""The bill of materials of what is deployed, as CycloneDX JSON: of the same files always the same bytes.

What the image adds to Triton's comes from its lock files, for the system and the Python of that image; the images come
from ``deploy/versions/versions.env``. What NVIDIA's image itself holds, the builder tells: deploy/OPERATIONS.md.

usage: sbom.py OUTPUT
"""  # noqa: INP001 - a script beside the lock files

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomllib
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
_PYTHON = "3.12"  # of Triton's image
_IMAGE = {
    "python_version": _PYTHON,
    "python_full_version": f"{_PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
_LOCKS = {"container.txt": "/opt/radserve", "steps.txt": "/opt/steps"}


def bill(root: Path = ROOT) -> dict[str, Any]:
    """The bill of a checkout."""
    lines = (root / "deploy" / "versions" / "versions.env").read_text().splitlines()
    images = {name: image for name, _, image in (line.partition("=") for line in lines) if name.endswith("_IMAGE")}
    own = _container(images.pop("RADSERVE_IMAGE"))
    base = _container(images.pop("TRITON_IMAGE"))
    others = [_container(image) for image in images.values()]
    libraries = [_radserve(root)]
    for lock, folder in _LOCKS.items():
        libraries += _libraries(root / "deploy" / "requirements" / lock, folder)
    inside = sorted([base, *libraries], key=lambda one: str(one["bom-ref"]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": [*inside, *others],
        "dependencies": [{"ref": own["bom-ref"], "dependsOn": [one["bom-ref"] for one in inside]}],
    }


def _container(image: str) -> dict[str, Any]:
    """An image, as ``REPOSITORY:TAG`` or ``REPOSITORY:TAG@sha256:DIGEST``."""
    reference, _, digest = image.partition("@sha256:")
    name, _, tag = reference.rpartition(":")
    found = {"type": "container", "bom-ref": image, "name": name, "version": tag}
    return found | ({"hashes": [{"alg": "SHA-256", "content": digest}]} if digest else {})


def _radserve(root: Path) -> dict[str, Any]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    licences = [{"license": {"id": project["license"]}}]
    return {"type": "library", "bom-ref": f"{name}=={version}", "name": name, "version": version, "licenses": licences}


def _libraries(lock: Path, folder: str) -> list[dict[str, Any]]:
    """The packages that a lock file brings into the image, as cyclonedx-py sees them."""
    lines = lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    kept = [line for line in lines if line and not line.startswith("#") and _is_installed(line)]
    program = Path(sys.executable).with_name("cyclonedx-py")
    command = [str(program), "requirements", "--output-reproducible", "--no-validate", "--sv", "1.6", "-"]
    done = subprocess.run(command, input="\n".join(kept), check=True, capture_output=True, text=True)  # noqa: S603 - ours
    found: list[dict[str, Any]] = json.loads(done.stdout)["components"]
    for one in found:
        del one["description"]  # the line of the lock file once more
        one["bom-ref"] = f"{folder}/{one['name']}=={one['version']}"
        one["properties"] = [{"name": "radserve:folder", "value": folder}]
    return found


def _is_installed(line: str) -> bool:
    marker = Requirement(line.partition("--hash")[0]).marker
    return marker is None or marker.evaluate(dict(_IMAGE))


def main() -> int:
    """Write the bill, once the schema has accepted it."""
    made = bill()
    text = json.dumps(made, indent=2) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        print(f"the bill of materials is not CycloneDX 1.6: {problem}", file=sys.stderr)  # noqa: T201 - a script
        return 1
    output = Path(sys.argv[1])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(f"{output}: {len(made['components'])} components")  # noqa: T201 - a script
    return 0


if __name__ == "__main__":
    sys.exit(main())
