"""A file of answers, whatever stops the run that writes it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from radserve.contracts import Task
from radserve.errors import (
    ContractError,
    DecodeError,
    InputError,
    MissingAttributeError,
    MissingExtraError,
    OutOfScopeError,
    RadserveError,
    ServerUnavailableError,
    UnsupportedTransferSyntaxError,
)
from radserve.journal import Journal, content_key, file_key, to_line
from radserve.results import GeneratedText, Provenance

if TYPE_CHECKING:
    from collections.abc import Callable


def answer(text: str = "no effusion", version: int = 1) -> GeneratedText:
    provenance = Provenance(
        task=Task.TEXT_GENERATION,
        intended_use="Tests only",
        model_sha256="0" * 64,
        contract_sha256="1" * 64,
        sdk_version="0",
        sop_instance_uids=(),
        request_id="",
        created=datetime(2026, 11, 22, tzinfo=timezone.utc),
    )
    return GeneratedText(
        model="writer", version=version, provenance=provenance, text=text, is_complete=True, log_probability=-1.0
    )


def written(path: Path, *keys: str) -> bytes:
    with Journal.open(path, model="writer", resume=path.exists()) as journal:
        for key in keys:
            journal.write(key, f"{key}.dcm", answer())
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def test_each_answer_is_a_line_that_tells_input_and_result(path: Path) -> None:
    with Journal.open(path, model="writer") as journal:
        assert journal.write("a", "王.dcm", answer(), label_map="a.png")
        assert journal.write("b", "b.dcm", MissingAttributeError("Rows", "an image has it"))
        assert (len(journal), journal.refused, journal.versions) == (2, 1, {1})
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert first == {"input": "王.dcm", "key": "a", "label_map": "a.png", **answer().to_dict()}
    assert second["error"] == {"type": "MissingAttributeError", "message": "Rows is missing: an image has it"}
    assert "王" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_twice(path: Path) -> None:
    with Journal.open(path, model="writer") as journal:
        assert journal.write("a", "a.dcm", answer())
        assert not journal.write("a", "a.dcm", answer())
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ServerUnavailableError("gone"),
        ContractError("newer than this SDK"),
        MissingExtraError("codecs", "JPEG 2000"),
        RadserveError("the audit log cannot be written"),
        UnsupportedTransferSyntaxError("no decoder is installed", is_final=False),
        DecodeError("the decoder was killed", is_final=False),
    ],
)
def test_what_is_not_the_inputs_fault_is_not_written(path: Path, error: RadserveError) -> None:
    with Journal.open(path, model="writer") as journal:
        assert not journal.write("a", "a.dcm", error)
        assert ("a" in journal, journal.refused) == (False, 0)
    assert path.read_bytes() == b""


def test_a_run_goes_on_with_what_is_there(path: Path) -> None:
    before = written(path, "a", "b")
    with Journal.open(path, model="writer", resume=True) as journal:
        assert "a" in journal
        assert "c" not in journal
        journal.write("c", "c.dcm", answer(version=2))
        assert journal.versions == {1, 2}
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("zeros", [b"", b"\0\0\0"])
def test_cut_at_any_byte_only_what_was_cut_is_asked_again(path: Path, zeros: bytes) -> None:
    whole = written(path, "a", "b", "c")
    ends = [place + more for place, byte in enumerate(whole) if byte == ord("\n") for more in (-1, 0, 1)]
    for size in {*range(0, len(whole), 97), *range(12), *ends}:
        path.write_bytes(whole[:size] + zeros)
        with Journal.open(path, model="writer", resume=True) as journal:
            for key in "abc":
                journal.write(key, f"{key}.dcm", answer())
        assert path.read_bytes() == whole, size


def test_what_is_there_is_kept_unless_the_run_is_to_go_on(path: Path) -> None:
    before = written(path, "a")
    with pytest.raises(InputError, match="is there already: resume"):
        Journal.open(path, model="writer")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"precious, and without an end of line",
        b"\x89PNG\r\n\x1a\n",
        b"[]\n",
        b"{}\n",
        b"1\n",
        b'{"input": "a", "key": 1, "model": "writer"}\n',
        b'{"input": "a", "key": "a", "model": "writer", "version": "1"}\n',
        b'{"input": "a", "key": "a"}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_file_of_something_else_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"line 1 of .* is no answer"):
        Journal.open(path, model="writer", resume=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize(("model", "frame"), [("reader", None), ("writer", 1)])
def test_answers_of_another_model_or_frame_are_not_mixed_in(path: Path, model: str, frame: int | None) -> None:
    written(path, "a")
    with pytest.raises(InputError, match="another model, or about another frame"):
        Journal.open(path, model=model, frame=frame, resume=True)


def test_a_frame_is_told_and_goes_on_with_the_same(path: Path) -> None:
    for number in range(2):
        with Journal.open(path, model="writer", frame=3, resume=True) as journal:
            journal.write(str(number), "a.dcm", answer())
    assert [json.loads(line)["frame"] for line in path.read_text().splitlines()] == [3, 3]


def test_two_runs_on_one_file_are_refused(path: Path) -> None:
    with Journal.open(path, model="writer"):
        for resume in (False, True):
            with pytest.raises(InputError, match="another run writes to"):
                Journal.open(path, model="writer", resume=resume)
    Journal.open(path, model="writer").close()


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null"), lambda path: path.symlink_to("gone/x")]
)
def test_what_cannot_hold_a_run_is_refused(path: Path, make: Callable[[Path], Any]) -> None:
    make(path)
    with pytest.raises(InputError, match=r"cannot write to|no regular file"):
        Journal.open(path, model="writer", resume=True)


@pytest.mark.parametrize("fails", [os.write, os.fsync])
def test_an_answer_that_could_not_be_written_whole_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: Any
) -> None:
    real = os.write

    def short(file: int, line: bytes) -> int:
        if not line.startswith(b"{"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, line[:9])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = written(path, "a")
    with Journal.open(path, model="writer", resume=True) as journal:
        with monkeypatch.context() as patched:
            patched.setattr("radserve.journal._SYNC_S", -1)
            patched.setattr(os, fails.__name__, short if fails is os.write else full)
            with pytest.raises(RadserveError, match=r"No space left on device; .* resume"):
                journal.write("b", "b.dcm", answer())
        assert path.read_bytes() == before
        assert "b" not in journal
        assert journal.write("b", "b.dcm", answer())
    assert path.read_bytes().count(b"\n") == 2


_FILL = """
import sys
sys.path.append(sys.argv[2])
import resource
from test_sdk_journal import Journal, RadserveError, answer
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
with Journal.open(sys.argv[1], model="writer") as journal:
    try:
        for number in range(1000):
            journal.write(str(number), "a.dcm", answer())
    except RadserveError as error:
        print(len(journal), error)
"""


def test_a_file_that_may_grow_no_further_holds_whole_lines(path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", _FILL, str(path), str(Path(__file__).parent)], check=True, capture_output=True, text=True
    )
    count, told = done.stdout.split(" ", 1)
    assert "File too large" in told
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == int(count) > 0
    assert all(json.loads(line)["input"] == "a.dcm" and line.endswith("\n") for line in lines)


def test_a_file_is_known_by_place_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    for place in (one, other):
        place.write_bytes(b"1")
        os.utime(place, ns=(0, 0))
    key = file_key(one)
    monkeypatch.chdir(tmp_path)
    assert file_key("a") == key
    assert file_key(other) != key
    os.utime(one, ns=(0, 1))
    assert file_key(one) != key
    os.utime(one, ns=(0, 0))
    assert file_key(one) == key
    one.write_bytes(b"12")
    os.utime(one, ns=(0, 0))
    assert file_key(one) != key


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    keys = [file_key(tmp_path)]
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"1")
        keys.append(file_key(tmp_path))
    assert len(set(keys)) == 3
    with pytest.raises(FileNotFoundError):
        file_key(tmp_path / "none")


def test_texts_are_known_by_what_they_say() -> None:
    assert content_key(b"a") == content_key(b"a") != content_key(b"b")


def test_a_name_that_is_no_text_can_be_written_and_read_again() -> None:
    name = os.fsdecode(b"caf\xe9.dcm")
    assert json.loads(to_line({"input": name}).encode()) == {"input": name}
    assert to_line({"input": "王"}) == '{"input": "王"}\n'


@pytest.mark.parametrize("kind", [DecodeError, OutOfScopeError, UnsupportedTransferSyntaxError, InputError])
def test_what_a_file_refused_stays_refused(path: Path, kind: type[InputError]) -> None:
    with Journal.open(path, model="writer") as journal:
        journal.write("a", "a.dcm", kind("cut"))
    with Journal.open(path, model="writer", resume=True) as journal:
        assert ("a" in journal, journal.refused) == (True, 1)


def test_what_does_not_reach_the_disk_at_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal.open(tmp_path / "a", model="writer")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RadserveError, match="No space left on device; the last answers may not be in it"):
        journal.close()
    monkeypatch.undo()
    Journal.open(tmp_path / "a", model="writer").close()  # nobody holds it


def test_a_disk_that_fails_while_it_is_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(InputError, match=r"cannot write to .*a: Input/output error"):
        Journal.open(tmp_path / "a", model="writer")
