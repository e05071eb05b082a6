"""One place says which versions are deployed; everything else follows it."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import version
from typing import TYPE_CHECKING

import tomllib
import yaml
from support.deployment import DEPLOY, ROOT, compose, kubectl, run, substituted, tool, versions

if TYPE_CHECKING:
    from pathlib import Path

FLOOR = (26, 7)
_DIGEST = r"(@sha256:[0-9a-f]{64})?"


def _triton() -> str:
    found = re.fullmatch(r"nvcr\.io/nvidia/tritonserver:(\d\d\.\d\d)-py3" + _DIGEST, versions()["TRITON_IMAGE"])
    assert found
    return found[1]


def test_triton_has_the_security_fixes_that_set_the_floor() -> None:
    assert tuple(map(int, _triton().split("."))) >= FLOOR


def test_every_image_has_a_version_of_its_own() -> None:
    images = {name: value for name, value in versions().items() if name.endswith("_IMAGE")}
    assert len(images) == 6
    for image in images.values():
        assert re.fullmatch(r"[a-z./]+:[a-z-]*v?\d+(\.\d+)+(-[\w.]+)?" + _DIGEST, image), image


def test_images_may_be_pinned_by_digest(tmp_path: Path) -> None:
    digest = "@sha256:" + 64 * "0"
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy, symlinks=True)
    env = copy / "versions" / "versions.env"
    env.write_text(re.sub(r"^(\w+_IMAGE=.*)$", rf"\1{digest}", env.read_text(), flags=re.MULTILINE))
    rendered = run(kubectl(), "kustomize", copy / "kubernetes" / "overlays" / "multi-gpu").stdout
    images = re.findall(r"^ *(?:- )?image: (.*)$", rendered, re.MULTILINE)
    assert images
    assert all(image.endswith(digest) for image in images)
    pinned = {name: value + digest * name.endswith("_IMAGE") for name, value in versions().items()}
    services = yaml.safe_load(substituted((DEPLOY / "compose.yaml").read_text(), pinned))["services"].values()
    assert all(service["image"].endswith(digest) for service in services)
    assert all(service["build"]["args"]["TRITON_IMAGE"].endswith(digest) for service in services if "build" in service)


def test_the_image_says_what_it_is_and_of_what_it_was_built() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', text))
    assert labels["version"] == versions()["RADSERVE_IMAGE"].partition(":")[2]
    assert labels["revision"] == "${REVISION}"
    assert labels["base.name"] == "${TRITON_IMAGE}"
    assert compose()["services"]["triton"]["build"]["args"].keys() == {"TRITON_IMAGE", "REVISION"}


def test_the_image_is_named_after_what_it_is_made_of() -> None:
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert versions()["RADSERVE_IMAGE"] == f"radserve/triton:{own}-{_triton()}"


def test_the_dockerfile_builds_on_that_triton_and_no_other() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert re.findall(r"^ARG (\w+_IMAGE)=(.*)$", text, re.MULTILINE) == [("TRITON_IMAGE", versions()["TRITON_IMAGE"])]
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${TRITON_IMAGE}"}
    assert f"--tag {versions()['RADSERVE_IMAGE']} ." in text


def test_compose_reads_that_file_by_itself_and_names_no_image() -> None:
    assert (DEPLOY / ".env").resolve() == DEPLOY / "versions" / "versions.env"
    images = re.findall(r"^ *image: (.*)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    assert len(images) == 5
    assert all(re.fullmatch(r"\$\{\w+_IMAGE:\?\}", image) for image in images)
    assert {service["image"] for service in compose()["services"].values()} <= set(versions().values())


def test_the_deployed_envoy_is_the_tested_one() -> None:
    tested = re.search(r"/(\d+\.\d+\.\d+)/", run(tool("envoy"), "--version").stdout)
    assert tested
    assert versions()["ENVOY_IMAGE"].endswith(f":v{tested[1]}")


def test_the_container_has_the_packages_that_the_tests_run_with() -> None:
    served = (DEPLOY / "requirements" / "serve.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", served, re.MULTILINE))
    for name in ("container.txt", "steps.txt"):
        text = (DEPLOY / "requirements" / name).read_text()
        found = dict(re.findall(r"^([\w.-]+)==(\S+)(?! ; python_full_version >= '3.13')", text, re.MULTILINE))
        assert found.items() <= {**pinned, "ml-dtypes": found.get("ml-dtypes"), "colorama": "0.4.6"}.items(), name
    assert version("tokenizers") == pinned["tokenizers"]
