"""The audit log: whole lines, hashed inputs, and no answer without an entry."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from radserve.audit import AuditLog
from radserve.errors import InputError, RadserveError

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"k" * 32
ENTRY: dict[str, Any] = {
    "model": "demo",
    "version": 3,
    "contract_sha256": "0" * 64,
    "request_id": "r",
    "sop_instance_uids": ["1.2.3", "1.2.4"],
    "outcome": "answered",
}


def test_an_entry_says_who_asked_what_of_which_version_and_hashes_the_input(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", site_key=KEY, actor="PACS 東")
    log.record("predict", **ENTRY)
    text = (tmp_path / "audit.jsonl").read_text(encoding="utf-8")
    (entry,) = map(json.loads, text.splitlines())
    assert (entry["actor"], entry["action"], entry["model"], entry["version"]) == ("PACS 東", "predict", "demo", 3)
    assert entry["inputs"] == [log.hashed("1.2.3"), log.hashed("1.2.4")]
    assert "1.2.3" not in text
    assert AuditLog(tmp_path / "b", site_key=b"o" * 32, actor="a").hashed("1.2.3") != log.hashed("1.2.3")
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_entries_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    logs = [AuditLog(path, site_key=KEY, actor=f"system {number}") for number in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logs[number % 4].record("predict", **ENTRY), range(60)))
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(entry["actor"] for entry in entries) == sorted(f"system {number % 4}" for number in range(60))


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "no" / "audit.jsonl", site_key=KEY, actor="a")
    with pytest.raises(RadserveError, match="nothing is answered without it"):
        log.record("predict", **ENTRY)


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(RadserveError, match=r"/dev/full cannot be written \(.+\)"):
        AuditLog("/dev/full", site_key=KEY, actor="a").record("predict", **ENTRY)


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, write = AuditLog(tmp_path / "audit.jsonl", site_key=KEY, actor="a"), os.write
    log.record("predict", **ENTRY)
    with monkeypatch.context() as full:
        full.setattr("radserve.audit.os.write", lambda file, line: write(file, line[:20]))
        with pytest.raises(RadserveError, match="the disk is full"):
            log.record("predict", **ENTRY)
    log.record("infer", **ENTRY)
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["predict", "infer"]


@pytest.mark.parametrize("given", [{"site_key": b"short"}, {"actor": ""}, {"actor": "a\nb"}])
def test_a_short_key_or_no_plain_name_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        AuditLog(tmp_path / "a", **{"site_key": KEY, "actor": "a", **given})


def test_the_key_is_never_shown(tmp_path: Path) -> None:
    assert "kkkk" not in repr(AuditLog(tmp_path / "a", site_key=KEY, actor="a"))
