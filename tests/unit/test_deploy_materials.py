"""The bill of materials, and the audit of what is locked."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.deployment import DEPLOY, ROOT, run, versions

from requirements import audit

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT = DEPLOY / "requirements" / "sbom.py"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("bill") / "new" / "sbom.cdx.json"
    run(sys.executable, _SCRIPT, output)
    return output.read_text()


@pytest.fixture(scope="module")
def bill(written: str) -> dict[str, Any]:
    return dict(json.loads(written))


def test_the_bill_is_cyclonedx_and_a_broken_one_is_not(written: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(written) is None
    assert validator.validate_str(written.replace('"library"', '"libary"', 1)) is not None


def test_the_same_files_make_the_same_bill(written: str, tmp_path: Path) -> None:
    run(sys.executable, _SCRIPT, tmp_path / "again")
    assert (tmp_path / "again").read_text() == written
    assert "serialNumber" not in written
    assert "timestamp" not in written


@pytest.mark.parametrize(("lock", "folder"), [("container.txt", "/opt/radserve"), ("steps.txt", "/opt/steps")])
def test_every_package_of_a_lock_file_that_linux_installs_is_in_it(
    bill: dict[str, Any], lock: str, folder: str
) -> None:
    text = (DEPLOY / "requirements" / lock).read_text()
    elsewhere = re.compile(r"sys_platform == 'win32'|python_full_version >= '3\.13'")
    locked = {
        f"{name}@{version}"
        for name, version, rest in re.findall(r"^([\w.-]+)==(\S+)(.*)$", text, re.MULTILINE)
        if not elsewhere.search(rest)
    }
    found = {one["purl"].removeprefix("pkg:pypi/") for one in bill["components"] if folder in one["bom-ref"]}
    assert found == locked


def test_every_package_has_its_hashes(bill: dict[str, Any]) -> None:
    packages = [one for one in bill["components"] if "purl" in one]
    assert len(packages) > 20
    assert all(one["externalReferences"][0]["hashes"] for one in packages)


def test_the_images_are_those_that_are_deployed(bill: dict[str, Any]) -> None:
    own = bill["metadata"]["component"]["bom-ref"]
    images = {one["bom-ref"] for one in bill["components"] if one["type"] == "container"}
    assert images | {own} == {value for name, value in versions().items() if name.endswith("_IMAGE")}
    (inside,) = bill["dependencies"]
    assert inside["ref"] == own
    assert versions()["TRITON_IMAGE"] in inside["dependsOn"]


_CLEAN = {"name": "numpy", "version": "1.26.4", "vulns": []}
_VULNERABLE = {"name": "old", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2", "3"]}]}
_UNKNOWN = {"name": "own", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([_CLEAN], 0, "no known vulnerability in some.txt"),
        ([_CLEAN, _VULNERABLE], 1, "old 1: PYSEC-1, fixed in 2, 3"),
        ([_CLEAN, _UNKNOWN], 2, "not audited, as the database does not tell of them: own: "),
        ([_VULNERABLE, _UNKNOWN], 1, "not audited"),
    ],
)
def test_an_audit_passes_only_where_all_were_looked_up_and_are_clean(
    packages: list[Any],
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "_report", lambda _lock: {"dependencies": packages})
    assert audit.main([ROOT / "some.txt"]) == status
    assert told in "".join(capsys.readouterr())


def test_an_auditor_that_cannot_work_is_no_clean_bill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "_report", lambda _lock: "no network")
    assert audit.main([ROOT / "some.txt"]) == 2
    assert "some.txt (no network)" in capsys.readouterr().err
