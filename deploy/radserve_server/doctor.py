"""What is installed, what would be used, what is missing."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import replace
from importlib import metadata
from operator import eq, ge, gt, le, lt, ne
from typing import TYPE_CHECKING

from radserve.errors import RadserveError, ServerStartError, installing
from radserve_server.checks import Check, Status
from radserve_server.discover import find_triton, problems
from radserve_server.machine import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from radserve.options import ClientOptions

_LOWEST, _HIGHEST = (3, 11), (3, 12)  # what Triton's wheel and TensorFlow's have in common
_REQUIREMENT = re.compile(
    r"""^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?P<bounds>[^;]*?)\s*;.*extra == ['"](?P<extra>[a-z]+)['"]"""
)
_BOUND = re.compile(r"(?P<sign>[<>=!]=|[<>])\s*(?P<version>[^,\s]+)")
_COMPARE = {"<": lt, "<=": le, "==": eq, "!=": ne, ">=": ge, ">": gt}
_RELEASE = re.compile(r"\d+(?:\.\d+)*")


def examine(load: Callable[[], ClientOptions] | None = None, models: Sequence[str] = ()) -> list[Check]:
    """Look at this installation, and at servers.

    Args:
        load: Says which servers, and how they are reached; None asks none.
        models: Which public models of theirs to ask; none takes all that this caller may list.
    """
    python = f"Python {platform.python_version()} ({sys.executable})"
    checks = [Check("radserve", Status.OK, f"{metadata.version('radserve')} on {python}"), *_extras(), _server()]
    return checks if load is None else checks + _servers(load, models)


def _extras() -> list[Check]:
    """What the distribution itself says belongs to each extra."""
    needed: dict[str, list[tuple[str, str]]] = {}
    limited = set()
    for requirement in metadata.requires("radserve") or []:
        if (found := _REQUIREMENT.match(requirement)) and found["extra"] != "all":
            needed.setdefault(found["extra"], []).append((found["name"], found["bounds"]))
            if "python_version" in requirement:
                limited.add(found["name"])
    checks = []
    for extra, requirements in sorted(needed.items()):
        have = {name: version for name, _ in sorted(requirements) if (version := _version(name)) is not None}
        missing = sorted(name for name, _ in requirements if name not in have)
        unfit = [
            f"{name} {have[name]} is not {bounds}" for name, bounds in requirements if _is_unfit(have, name, bounds)
        ]
        fix = installing(extra)
        if limited.intersection(missing) and not _LOWEST <= sys.version_info[:2] <= _HIGHEST:
            fix = "use Python 3.11 or 3.12, and " + fix
        name = f"extra {extra}"
        if missing:
            detail = "; ".join([f"not installed: {', '.join(missing)}", *unfit])
            checks.append(Check(name, Status.ABSENT, detail, fix))
        elif unfit:
            checks.append(Check(name, Status.BROKEN, "; ".join(unfit), fix))
        else:
            checks.append(Check(name, Status.OK, ", ".join(f"{one} {version}" for one, version in have.items())))
    return checks


def _is_unfit(have: dict[str, str], name: str, bounds: str) -> bool:
    """Whether what is installed is outside the bounds, as pip would see it."""
    return name in have and not all(
        _COMPARE[found["sign"]](_numbers(have[name]), _numbers(found["version"])) for found in _BOUND.finditer(bounds)
    )


def _numbers(version: str) -> tuple[int, ...]:
    """A version's release, without zeros at its end: 1.26 and 1.26.0 are the same."""
    release = _RELEASE.match(version)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


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
    return Check("embedded server", Status.OK, f"{triton.binary} (from {triton.origin}), {cores()} core(s)")


def _servers(load: Callable[[], ClientOptions], models: Sequence[str]) -> list[Check]:
    from radserve_server import deployed  # noqa: PLC0415 - gRPC is slow to import

    try:
        options = load()
    except RadserveError as error:
        return [Check("servers", Status.BROKEN, str(error))]
    alone = [replace(options, endpoints=(endpoint,)) for endpoint in options.endpoints]
    return [check for options in alone for check in deployed.examine(options, models)]
