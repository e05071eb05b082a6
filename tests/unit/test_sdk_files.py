"""Files that the SDK writes: whole, where the caller means, as readable as before."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from radserve.errors import InputError
from radserve.files import write_file


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"one", b"another"):
        write_file(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_who_may_read_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch(mode=0o600)
    write_file(path, b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_who_may_not_read_it_does_not_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.touch(mode=0o600)
    modes: list[int] = []
    fsync = os.fsync

    def watched(file: int) -> None:
        modes.extend(stat.S_IMODE(one.stat().st_mode) for one in tmp_path.glob(".*.new"))
        fsync(file)

    chmod = os.fchmod

    def early(file: int, mode: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(file).st_mode))
        chmod(file, mode)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "fchmod", early)
    write_file(path, b"x")
    assert modes == [0o600, 0o600]


def test_another_group_than_before_may_read_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.touch()
    path.chmod(0o660)
    status = path.stat()

    def elsewhere(file: int) -> Any:
        return os.stat_result([*status[:5], status.st_gid + 1, *status[6:]]) if file else status

    def refused(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fstat", elsewhere)
    monkeypatch.setattr(os, "fchown", refused)
    write_file(path, b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    write_file(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_device_stays_one() -> None:
    write_file("/dev/null", b"x")
    assert not Path("/dev/null").is_file()
    with pytest.raises(InputError, match="cannot write to /dev/full: No space left on device"):
        write_file("/dev/full", b"x")


_WRITING = """
import sys
from radserve.files import write_file
print("before")
write_file(sys.argv[1], b"content\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_a_stream_is_written_to_where_it_stands(tmp_path: Path, name: str, into: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    command = [sys.executable, "-c", _WRITING, name if name.startswith("/") else str(tmp_path / name)]
    if into == "pipe":
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ours
        assert done.stdout == "before\ncontent\nafter\n"
        return
    log = tmp_path / "log"
    log.write_text("yesterday\n")
    with log.open("a") as file:
        subprocess.run(command, check=True, stdout=file)  # noqa: S603 - ours
    assert log.read_text() == "yesterday\nbefore\ncontent\nafter\n"


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(InputError, match="Too many levels of symbolic links"):
        write_file(tmp_path / "link", b"x")


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write to .*/no/a: No such file"):
        write_file(tmp_path / "no" / "a", b"x")
