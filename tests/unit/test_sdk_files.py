"""Files that the SDK writes: whole, where the caller means, as readable as before."""

from __future__ import annotations

import stat
from pathlib import Path

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


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write to .*/no/a: No such file"):
        write_file(tmp_path / "no" / "a", b"x")
