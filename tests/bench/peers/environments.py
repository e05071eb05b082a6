"""Each peer's own virtual environment, made when it is needed first."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from bench.peers.graphs import ROOT

REQUIREMENTS = Path(__file__).with_name("requirements")
_CACHE = ROOT / ".venv-peers"


class PeerError(Exception):
    """A peer cannot be measured; the message, one line, is its row."""


def python_of(name: str, *, systems: bool = False) -> Path:
    """The interpreter of a peer's environment, which has exactly what its lock file pins.

    Args:
        name: The peer's.
        systems: Use Debian's Python of this version if there is one: Triton's stub takes the system's
            libpython, and multiprocessing, which PyTriton uses in it, fails with another one's standard library.

    Raises:
        PeerError: It cannot be installed.
    """
    lock, folder = REQUIREMENTS / f"{name}.txt", _CACHE / name
    python, stamp = folder / "bin" / "python", folder / "lock.sha256"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
        return python
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    debians = "/usr/bin/python{}.{}".format(*sys.version_info)
    base = debians if systems and Path(debians).exists() else sys.executable
    for command in ([base, "-m", "venv", "--clear", str(folder)], [*install, "-r", str(lock)]):
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            msg = f"cannot be installed: {errors[0].removeprefix('ERROR: ')}"
            raise PeerError(msg)
    stamp.write_text(wanted, encoding="ascii")
    return python


def versions(name: str, packages: tuple[str, ...]) -> str:
    """The pinned versions of those packages."""
    pinned = dict(
        re.findall(r"^([\w.-]+)==(\S+)", (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    return ", ".join(f"{package} {pinned[package]}" for package in packages)
