"""The audit log: whole lines, hashed inputs, and no answer without an entry."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support.datasets import TEST_FILES
from support.scripted import KINDS, Shell, answered, failing, replied, response_to
from support.sdk_contracts import IMAGE, TEXT, contract

from radserve import _codec
from radserve.audit import AuditLog
from radserve.errors import DeadlineExceededError, InputError, RadserveError, Retry

if TYPE_CHECKING:
    from pathlib import Path

    from radserve._codec._flow import Call

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


def test_a_log_that_another_process_keeps_locked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radserve.audit._LOCKED_S", 0)
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, site_key=KEY, actor="a")
    path.touch()
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(RadserveError, match="another process has locked it"):
            log.record("predict", **ENTRY)
    assert path.read_bytes() == b""


def test_a_log_that_is_locked_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        monkeypatch.setattr("radserve.audit.time.sleep", lambda _: fcntl.flock(held, fcntl.LOCK_UN))
        AuditLog(path, site_key=KEY, actor="a").record("predict", **ENTRY)
    assert path.read_bytes().count(b"\n") == 1


CT = TEST_FILES / "CT_small.dcm"
UID = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
late = failing(DeadlineExceededError, Retry.NEVER, after_s=30)


def given_up(transport: object, step: Call, endpoint: str) -> Any:  # noqa: ARG001 - an outcome's arguments
    """The caller has no patience any more."""
    raise asyncio.CancelledError


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit.jsonl", site_key=KEY, actor="PACS")


def entries(log: AuditLog) -> list[tuple[str, list[str]]]:
    lines = log._path.read_text().splitlines() if log._path.exists() else []
    return [(entry["outcome"], entry["inputs"]) for entry in map(json.loads, lines)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("outcome", "told"),
    [(late, "DeadlineExceededError"), (given_up, "interrupted")],
)
def test_a_question_without_an_answer_is_noted_with_what_it_was_about(
    kind: str, outcome: Any, told: str, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(kind, {"a": [outcome]}, monkeypatch, served=contract(IMAGE), audit=log)
    with pytest.raises((DeadlineExceededError, asyncio.CancelledError)):
        shell(shell.model.predict, CT)
    assert entries(log) == [(told, [log.hashed(UID)])]


@pytest.mark.parametrize("writes", [0, 1])
def test_an_answer_that_nobody_waits_for_any_more_is_noted_once(
    writes: int, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell("sync", {"a": []}, monkeypatch, audit=log)
    cell = _codec.ContractCell(contract(TEXT))
    flow = _codec.predict_flow(cell, "calm", shell.client._session.call(None))
    step: Any = next(flow)
    step = flow.send(_codec.prepare_step(step))
    step = flow.send(replied(response_to(step.call.request), "a:1"))
    assert isinstance(step, _codec.Record)
    for _ in range(writes):
        step.write()
    flow.close()
    assert entries(log) == [("answered", [])]


def test_a_question_that_cannot_be_noted_is_cancelled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog(tmp_path / "no" / "audit.jsonl", site_key=KEY, actor="PACS")
    shell = Shell("async", {"a": [given_up]}, monkeypatch, audit=log)
    with pytest.raises(asyncio.CancelledError):
        shell(shell.model.predict, "calm")
    assert "a question that was interrupted is not in it" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_that_is_answered_is_noted_once(kind: str, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(kind, {"a": [answered]}, monkeypatch, audit=log)
    shell(shell.model.predict, "calm")
    assert entries(log) == [("answered", [])]
