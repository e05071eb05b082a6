"""A report's text, a file that holds one, and a name that is neither."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.scripted import KINDS, Shell, answered
from support.sdk_contracts import TEXT, contract

from radserve import InputError, Rejection, _codec

if TYPE_CHECKING:
    from pathlib import Path

REPORT = "No evidence of pneumothorax. 未见气胸"


def sent(source: Any) -> bytes:
    """What would travel."""
    array = _codec.prepare(contract(TEXT), source).inputs["TEXT"]
    assert array.shape == (1, 1)
    content: bytes = array[0, 0]
    return content


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report.txt"
    path.write_text(REPORT, encoding="utf-8")
    return path


def test_a_path_is_a_files_text_and_a_str_the_text_itself(file: Path) -> None:
    assert sent(file) == sent(file.read_bytes()) == sent(REPORT) == REPORT.encode()


def test_a_byte_order_mark_is_no_part_of_the_text(file: Path) -> None:
    file.write_bytes(BOM_UTF8 + b"x" * 64)
    assert sent(file) == b"x" * 64


@pytest.mark.parametrize(
    "name",
    ["report.txt", "studies/7/IM0001.DCM", "a.pdf\n", r"C:\reports\a.docx", "/nowhere/report.hl7"],
)
def test_a_str_that_looks_like_a_file_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"give the text itself, or a pathlib\.Path"):
        sent(name)


def test_a_str_that_names_a_file_is_refused_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report of today").write_text(REPORT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="file's name"):
        sent("report of today")
    assert sent("report of\ntoday") == b"report of\ntoday"


@pytest.mark.parametrize(
    "text", ["Normal.", "未见气胸。", "see scan.pdf", "No.findings.", "a.txt\nb.txt", "x" * 64, "."]
)
def test_a_text_is_a_text(text: str) -> None:
    assert sent(text) == text.encode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (BOM_UTF8 + b" \n", "empty"),
        (b"\xff", "not UTF-8"),
        (b"x" * 65, "longer than the 64 bytes"),
        ("气".encode() * 30, "longer than the 64 bytes"),
    ],
)
def test_a_file_that_holds_no_report_is_refused(file: Path, content: bytes, told: str) -> None:
    file.write_bytes(content)
    for source in (file, content):
        with pytest.raises(InputError, match=told):
            sent(source)


def test_a_file_that_cannot_be_read_is_refused_without_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ZZCANARYZZ")
    for path, told in ((tmp_path / "ZZCANARYZZ", "regular file"), (tmp_path, "folder"), (tmp_path / "no", "No such")):
        with pytest.raises(InputError, match=told) as caught:
            sent(path)
        assert "ZZCANARYZZ" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_ask_knows_a_name_from_a_text(kind: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(kind, {"a": [answered, answered]}, monkeypatch)
    inert = SimpleNamespace(call=shell.transport.call, cancel=lambda: None)  # a script's calls cannot be cancelled
    monkeypatch.setattr("radserve.client._many.Cancellable", lambda _: inert)

    def many(sources: list[Any]) -> list[Any]:
        if kind == "sync":
            return list(shell.model.predict_many(sources, workers=1))

        async def answers() -> list[Any]:
            return [answer async for answer in shell.model.predict_many(sources, workers=1)]

        return list(shell(answers))

    for method in (shell.model.predict, shell.model.prepare):
        with pytest.raises(InputError, match="file's name"):
            shell(method, str(file))
    shell(shell.model.predict, file)
    refused, answer = many([str(file), file])
    assert isinstance(refused, Rejection)
    assert not isinstance(answer, Rejection)
    assert {request.raw_input_contents[0][4:] for request in shell.transport.requests} == {REPORT.encode()}
