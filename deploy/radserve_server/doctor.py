"""What is installed, what would be used, what is missing."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from enum import Enum
from importlib import metadata

from radserve.errors import RadserveError, ServerStartError, installing
from radserve_server import canary
from radserve_server.control import Control
from radserve_server.discover import find_triton, problems

_TIMEOUT_S = 10.0
_LOWEST, _HIGHEST = (3, 11), (3, 12)  # what Triton's wheel and TensorFlow's have in common
_REQUIREMENT = re.compile(r"""^([A-Za-z0-9._-]+).*extra == ['"]([a-z]+)['"]""")


class Status(str, Enum):
    """How a check went."""

    OK = "ok"
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What it is.
        status: How it is.
        detail: What was found.
        fix: The command that puts it right; empty if nothing has to be.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def examine(url: str | None = None) -> list[Check]:
    """Look at this installation, and at a server.

    Args:
        url: ``host:port`` of a server's gRPC service; None asks none.
    """
    python = f"Python {platform.python_version()} ({sys.executable})"
    checks = [Check("radserve", Status.OK, f"{metadata.version('radserve')} on {python}"), *_extras(), _server()]
    return checks if url is None else checks + _remote(url)


def _extras() -> list[Check]:
    """What the distribution itself says belongs to each extra."""
    needed: dict[str, list[str]] = {}
    limited = set()
    for requirement in metadata.requires("radserve") or []:
        if (found := _REQUIREMENT.match(requirement)) and found.group(2) != "all":
            needed.setdefault(found.group(2), []).append(found.group(1))
            if "python_version" in requirement:
                limited.add(found.group(1))
    checks = []
    for extra, names in sorted(needed.items()):
        versions = {name: _version(name) for name in sorted(names)}
        missing = [name for name, version in versions.items() if version is None]
        have = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
        if missing:
            fix = f"{installing(extra)}"
            if any(name in limited for name in missing) and not _LOWEST <= sys.version_info[:2] <= _HIGHEST:
                fix = "use Python 3.11 or 3.12, and " + fix
            checks.append(Check(f"extra {extra}", Status.ABSENT, f"not installed: {', '.join(missing)}", fix))
        else:
            checks.append(Check(f"extra {extra}", Status.OK, have))
    return checks


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _server() -> Check:
    try:
        triton = find_triton()
    except ServerStartError as error:
        detail, _, fix = str(error).partition(": ")
        return Check("embedded server", Status.ABSENT, detail, fix)
    if found := problems(triton):
        what, fix = "; ".join(one.what for one in found), "; ".join(one.fix for one in found)
        return Check("embedded server", Status.BROKEN, what, fix)
    return Check("embedded server", Status.OK, f"{triton.binary} (from {triton.origin})")


def _remote(url: str) -> list[Check]:
    try:
        version = Control(url, timeout_s=_TIMEOUT_S).version()
        models = canary.public_models(url, timeout_s=_TIMEOUT_S)
    except RadserveError as error:
        fix = "check the address, and that the server runs"
        return [Check(f"server {url}", Status.BROKEN, f"does not answer: {error}", fix)]
    answers = Check(f"server {url}", Status.OK, f"Triton {version}, {len(models)} public model(s)")
    return [answers, *(_model(url, model) for model in models)]


def _model(url: str, model: str) -> Check:
    try:
        canary.check(url, model, timeout_s=_TIMEOUT_S)
    except RadserveError as error:
        return Check(f"model {model}", Status.BROKEN, f"does not answer: {error}", "see the server's log")
    return Check(f"model {model}", Status.OK, "answers")
