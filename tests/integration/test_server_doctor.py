"""``radserve doctor`` asks the servers that it is told of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.repositories import write_add_one, write_python
from support.servers import raw_server, write_certificate

from radserve.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ILL = """
class TritonPythonModel:
    def execute(self, requests):
        raise ValueError
"""


def told(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what was said of servers."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", *options])
    checks = json.loads(capsys.readouterr().out)
    return int(ended.value.code or 0), {check["name"]: check for check in checks if "server " in check["name"]}


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with TLS, and the file of its authority."""
    folder = tmp_path_factory.mktemp("encrypted")
    write_add_one(folder / "repository")
    write_certificate(folder, "ca", None)
    write_certificate(folder, "server", "ca")
    arguments = (
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={folder}/server.pem",
        f"--grpc-server-key={folder}/server.key",
    )
    with raw_server(folder / "repository", *arguments) as (_, url):
        yield url, folder / "ca.pem"


@pytest.mark.parametrize("place", ["options", "environment", "file"])
def test_an_encrypted_server_is_asked(
    place: str,
    encrypted: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, authority = encrypted
    options = ["--url", url, "--tls-ca", str(authority)] if place == "options" else []
    if place == "environment":
        monkeypatch.setenv("RADSERVE_ENDPOINTS", url)
        monkeypatch.setenv("RADSERVE_TLS_CA", str(authority))
    if place == "file":
        (tmp_path / "config").write_text(f"[radserve]\nendpoints = {url}\ntls_ca = {authority}\n")
        options = ["--config", str(tmp_path / "config")]
    _, servers = told(capsys, *options)
    assert servers[f"server {url}, connection"]["detail"] == "1 address(es) of 127.0.0.1, TLS"
    assert "version 1 answers in" in servers[f"server {url}, model add_one"]["detail"]


def test_each_server_is_asked_and_one_that_is_not_there_stops_nobody(
    encrypted: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    url, authority = encrypted
    status, servers = told(capsys, "--url", url, "--url", "127.0.0.1:1", "--tls-ca", str(authority), "--timeout", "5")
    assert status == 1
    assert servers[f"server {url}, connection"]["status"] == "ok"
    gone = servers["server 127.0.0.1:1, connection"]
    assert gone["status"] == "broken"
    assert gone["detail"] == "127.0.0.1:1 refuses connections: nothing listens there"
    assert gone["fix"]


def test_a_model_that_does_not_answer_is_told_and_the_others_are_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_add_one(tmp_path)
    write_python(tmp_path, "ill", _ILL)
    with raw_server(tmp_path) as (_, url):
        status, servers = told(capsys, "--url", url)
    assert status == 1
    assert "answers in" in servers[f"server {url}, model add_one"]["detail"]
    assert servers[f"server {url}, model ill"]["status"] == "broken"
