"""Looks every locked package up in the Python Package Index's database of known vulnerabilities. Needs the network.

It passes only if every package was looked up and none is known to be vulnerable: a database that does not answer is no
clean bill. pip-audit runs in an environment of its own.
"""  # noqa: INP001 - a script beside the lock files

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_AUDITOR = "pip-audit==2.10.1"


def problems(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What pip-audit found, a line each: packages that are vulnerable, and those that were not looked up."""
    vulnerable, unknown = [], []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
        for one in package.get("vulns", ()):
            fixed = ", ".join(one["fix_versions"]) or "no version"
            vulnerable.append(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    return vulnerable, unknown


def _report(lock: Path) -> dict[str, Any] | str:
    """What pip-audit says of a lock file, or why it says nothing."""
    uv = str(Path(sys.executable).with_name("uv"))
    options = ("--format", "json", "--progress-spinner", "off", "--disable-pip", "--require-hashes")
    command = [uv, "tool", "run", _AUDITOR, *options, "--requirement", str(lock)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours
    try:
        return dict(json.loads(done.stdout))
    except json.JSONDecodeError:
        return (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]


def main(locks: list[Path]) -> int:
    """0 where all packages are known to be clean, 1 where one is vulnerable, 2 where some were not looked up."""
    all_vulnerable, all_unknown = set(), set()
    for lock in locks:
        report = _report(lock)
        vulnerable, unknown = ([], [f"{lock.name} ({report})"]) if isinstance(report, str) else problems(report)
        all_vulnerable.update(vulnerable)
        all_unknown.update(unknown)
        if isinstance(report, str) or len(unknown) == len(report["dependencies"]):
            break  # the database does not answer: nor will it of the other files
    for line in sorted(all_vulnerable):
        print(line, file=sys.stderr)  # noqa: T201 - a script
    if all_unknown:
        names = ", ".join(sorted(all_unknown))
        advice = "ask again where the Python Package Index itself, not a mirror of it, can be reached"
        print(f"not audited, as the database does not tell of them: {names}: {advice}", file=sys.stderr)  # noqa: T201
    if all_vulnerable or all_unknown:
        return 1 if all_vulnerable else 2
    print(f"no known vulnerability in {', '.join(lock.name for lock in locks)}")  # noqa: T201 - a script
    return 0


if __name__ == "__main__":
    sys.exit(main(sorted(_FOLDER.glob("*.txt"), key=lambda lock: lock.stat().st_size)))
