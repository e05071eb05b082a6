from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import grpc
import pytest
import tomllib
import typer
from packaging.requirements import Requirement
from tritonclient.grpc.service_pb2 import RepositoryIndexResponse, ServerMetadataResponse
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from radserve.errors import ServerStartError, installing
from radserve.options import TLS, ClientOptions
from radserve_server import deployed, doctor
from radserve_server.certificates import development_certificates
from radserve_server.checks import Check, Status
from radserve_server.commands import doctor as command
from radserve_server.discover import Problem
from radserve_server.doctor import examine
from radserve_server.reach import reach

ROOT = Path(__file__).resolve().parents[2]


def _by_name() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def test_a_whole_installation_is_ok() -> None:
    assert {check.status for check in examine()} == {Status.OK}


def test_a_missing_part_of_an_extra_is_absent_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "python-gdcm" else version(name))
    check = _by_name()["extra codecs"]
    assert check.status is Status.ABSENT
    assert "python-gdcm" in check.detail
    assert check.fix == installing("codecs")


def test_no_server_is_absent_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> None:
        msg = "no Triton server was found: install one"
        raise ServerStartError(msg)

    monkeypatch.setattr(doctor, "find_triton", find)
    check = _by_name()["embedded server"]
    assert (check.status, check.fix) == (Status.ABSENT, "install one")


def test_a_server_with_a_problem_is_broken_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "problems", lambda _triton: [Problem("numpy 2", "pip install 'numpy<2'")])
    check = _by_name()["embedded server"]
    assert (check.status, check.detail, check.fix) == (Status.BROKEN, "numpy 2", "pip install 'numpy<2'")


@pytest.mark.parametrize(
    ("requirement", "version", "told"),
    [
        ("numpy<2", "2.4.6", "numpy 2.4.6 is not <2"),
        ("numpy<2", "1.26.4", None),
        ("rich>=13.7", "13.10.0", None),
        ("rich>=13.7", "13.7", None),
        ("rich>=13.7", "9.13", "rich 9.13 is not >=13.7"),
        ("rich>=13.7,<14", "14.0", "rich 14.0 is not >=13.7,<14"),
        ("nvidia-pytriton==0.7.0", "0.7", None),
        ("nvidia-pytriton==0.7.0", "0.7.1", "nvidia-pytriton 0.7.1 is not ==0.7.0"),
    ],
)
def test_a_part_of_an_extra_must_be_of_a_version_that_fits(
    requirement: str, version: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f"{requirement}; (python_version >= '3.11' and python_version < '3.13') and extra == 'server'"
    monkeypatch.setattr(metadata, "requires", lambda _name: ["numpy>=3", said])
    monkeypatch.setattr(doctor, "_version", lambda _name: version)
    (check,) = doctor._extras()
    assert check.status is (Status.BROKEN if told else Status.OK)
    assert (check.detail, check.fix) == (told, installing("server")) if told else check.fix == ""


def test_all_bounds_of_the_distribution_are_understood() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in map(Requirement, requirements):
            metadatum = f"{requirement.name}{requirement.specifier}; extra == '{extra}'"
            found = doctor._REQUIREMENT.match(metadatum)
            assert found
            bounds = doctor._BOUND.findall(found["bounds"])
            assert {sign + version for sign, version in bounds} == {str(one) for one in requirement.specifier}


def test_settings_that_cannot_be_read_are_broken_and_the_rest_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as exited:
        command(config=tmp_path / "none", json=True)
    assert exited.value.exit_code == 1
    told = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert told["servers"]["status"] == "broken"
    assert "cannot read the configuration file" in told["servers"]["detail"]
    assert told["radserve"]["status"] == "ok"


def test_json_is_complete_and_the_exit_code_tells_of_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "problems", lambda _triton: [Problem("numpy 2", "fix")])
    with pytest.raises(typer.Exit) as exited:
        command(json=True)
    assert exited.value.exit_code == 1
    told = json.loads(capsys.readouterr().out)
    assert {"name": "embedded server", "status": "broken", "detail": "numpy 2", "fix": "fix"} in told


def test_people_get_a_line_per_check(capsys: pytest.CaptureFixture[str]) -> None:
    command()
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert len(lines) == len(examine())


def test_the_commands_are_quick_to_import() -> None:
    heavy = "{'grpc', 'tritonclient', 'rich.progress', 'radserve_server.embedded'}"
    code = f"import sys, radserve_server.commands; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("host", ["gateway..example", "a" * 64 + ".example"])
def test_what_cannot_be_a_name_is_told(host: str) -> None:
    (check,) = deployed.examine(ClientOptions(endpoints=(f"{host}:8443",), insecure=True))
    assert (check.status, check.name) == (Status.BROKEN, f"server {host}:8443, connection")
    assert "nobody knows this name" in check.detail


def test_what_a_server_tells_stays_one_line_of_text() -> None:
    options = ClientOptions(endpoints=("127.0.0.1:8001",))
    with grpc.insecure_channel("127.0.0.1:8001") as channel:
        asked = deployed._Deployment(options, channel)
        check = deployed._version(asked, "2.71\x1b[2J\nserver ok")
        (unloadable,) = deployed._unloadable(
            asked, [RepositoryIndexResponse.ModelIndex(name="a\x1b[2J", state="UNAVAILABLE", reason="gone")]
        )
    told = [check.detail, unloadable.name]
    assert "\\x1b[2J" in check.detail
    assert all(text.isprintable() for text in told)


@pytest.mark.parametrize(
    ("version", "date"),
    [("9" * 5000, "now"), ("2.75.0", "Mon, 23 Nov 2026 12:00:00 +" + "9" * 20), ("2.75.0", "Mon, 99 Nov 9999999999")],
)
def test_whatever_a_server_says_of_version_and_time_is_no_traceback(version: str, date: str) -> None:
    class Metadata(GRPCInferenceServiceServicer):  # type: ignore[misc] # generated without types
        def ServerMetadata(self, _request: object, context: grpc.ServicerContext) -> ServerMetadataResponse:  # noqa: N802 - Triton's name
            context.send_initial_metadata((("date", date),))
            return ServerMetadataResponse(name="triton", version=version)

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        add_GRPCInferenceServiceServicer_to_server(Metadata(), server)
        url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            checks = examine(lambda: ClientOptions(endpoints=(url,), timeout_s=5))
        finally:
            server.stop(None).wait()
    assert f"server {url}, Triton" in {check.name for check in checks}


def test_where_no_authorities_are_named_those_of_grpc_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = development_certificates()
    authority = tmp_path / "ca.crt"
    authority.write_bytes(files["ca.crt"])
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(files["tls.key"], files["tls.crt"])]))
    server.start()
    try:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))  # the operating system's, which gRPC does not ask
        (refused,) = reach("gateway", f"127.0.0.1:{port}", TLS(), timeout_s=10)
        assert "an authority that is not trusted here" in refused.detail
        monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(authority))
        trusted, _age = reach("gateway", f"127.0.0.1:{port}", TLS(), timeout_s=10)
        assert trusted.status is Status.OK
    finally:
        server.stop(None).wait()
