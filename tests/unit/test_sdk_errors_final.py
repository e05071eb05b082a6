"""Which refusals are for good, and which another attempt may undo."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from support.datasets import TEST_FILES

from radserve import pictures
from radserve.dicom import open_series, read_image
from radserve.errors import DecodeError, DicomError, InputError, MissingAttributeError, RadserveError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def no_file(folder: Path) -> Any:
    return read_image(folder / "gone.dcm")


def no_picture(folder: Path) -> Any:
    return pictures.read_picture(folder / "gone.png")


def no_folder(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("radserve.dicom._series.os.scandir", lambda _: (folder / "gone").stat())
        return open_series(folder)


def no_decoder(_: Path) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("radserve.dicom._decode.is_installed", lambda *_: False)
        return read_image(TEST_FILES / "MR_small_jp2klossless.dcm")


@pytest.mark.parametrize("ask", [no_file, no_picture, no_folder, no_decoder])
def test_what_may_be_there_another_time_is_not_refused_for_good(ask: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ask(tmp_path)
    assert not caught.value.is_final


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM"])
def test_what_the_file_is_refused_for_is_for_good(content: bytes) -> None:
    with pytest.raises(DicomError) as caught:
        read_image(content)
    assert caught.value.is_final


def test_of_other_errors_none_is_and_the_way_from_another_process_keeps_it() -> None:
    assert not RadserveError("x").is_final
    assert not ServerError("x").is_final
    for error in (DecodeError("x", is_final=False), MissingAttributeError("Rows", "an image has it")):
        assert pickle.loads(pickle.dumps(error)).is_final is error.is_final  # noqa: S301 - our own
