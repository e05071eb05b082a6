"""What ``radserve doctor --url`` says of deployments: real gateways before a real Triton, well and ill."""

from __future__ import annotations

import http.server
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import tritonclient.grpc as triton
from support.deployment import run, tool
from support.echo import furnished
from support.envoys import RunningEnvoy, envoy, place, tls, token, write_issuer
from support.repositories import write_add_one
from support.servers import raw_server

from radserve.cli import main
from radserve.contracts import SCHEMA_VERSION
from radserve.options import ClientOptions, Secret
from radserve_server import EmbeddedServer, deployed
from radserve_server.checks import Check, Status
from radserve_server.gateway import Tokens, canary_of
from radserve_server.reach import not_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Behind = Callable[..., AbstractContextManager[RunningEnvoy]]

_CLOSED = [f"closed: {what}" for what in ("loading of models", "shared memory", "traces", "log settings")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("deployed"))


@pytest.fixture(scope="module")
def behind(folder: Path) -> Iterator[Behind]:
    """A function that starts a gateway of a replica, with further settings."""
    with EmbeddedServer(folder / "models", supervise=False, verify=False) as replica:
        yield partial(envoy, folder, [replica.grpc_url], canary_of(folder / "models", "echo"))


@pytest.fixture(scope="module")
def gateway(behind: Behind) -> Iterator[RunningEnvoy]:
    with behind() as running:
        yield running


@pytest.fixture
def any_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the embedded server for one that is fit for production."""
    monkeypatch.setattr(deployed, "FLOOR", (2, 51))


def examined(url: str, *models: str, **options: Any) -> dict[str, Check]:
    """The checks by what they are about."""
    checks = deployed.examine(ClientOptions(endpoints=(url,), timeout_s=10, **options), models)
    return {check.name.removeprefix(f"server {url}").removeprefix(", "): check for check in checks}


@pytest.mark.usefixtures("any_version")
def test_all_is_well_behind_the_gateway_and_the_command_says_so(
    gateway: RunningEnvoy, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    options = [word for name, file in files.items() for word in (f"--tls-{name}", str(folder / file))]
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", "--url", gateway.url, *options, "--model", "echo"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    told = {name.rpartition(", ")[2]: check["status"] for name, check in checks.items() if "server 1" in name}
    expiring = dict.fromkeys(["certificate", "own certificate"], "warning")  # those of the tests live for two days
    fine = dict.fromkeys(["connection", "Triton", "clock", "permissions", *_CLOSED], "ok")
    assert told == expiring | fine | {"model echo": "warning"}  # its queue has no limit
    assert not ended.value.code


@pytest.mark.usefixtures("any_version")
def test_a_caller_that_may_list_no_models_is_no_fault(gateway: RunningEnvoy, folder: Path) -> None:
    checks = examined(gateway.url, tls=tls(folder, "client"))
    assert checks["permissions"].status is Status.ABSENT
    assert "--model" in checks["permissions"].fix
    assert Status.BROKEN not in {check.status for check in checks.values()}


@pytest.mark.usefixtures("any_version")
def test_an_operator_is_told_of_all_public_models(gateway: RunningEnvoy, folder: Path) -> None:
    checks = examined(gateway.url, tls=tls(folder, "radserve-operator"))
    assert "operator" in checks["permissions"].detail
    assert "version 1 answers in" in checks["model echo"].detail
    assert "the queue of echo_step" in checks["model echo"].detail
    assert checks["model faulty"].status is Status.OK
    assert {name for name in checks if name.startswith("model ")} == {"model echo", "model faulty"}
    assert all(checks[name].status is Status.OK for name in _CLOSED)


def test_a_gateway_without_a_healthy_replica_is_told(folder: Path) -> None:
    with envoy(folder, ["127.0.0.1:1"], canary_of(folder / "models", "echo"), healthy=0) as gateway:
        checks = examined(gateway.url, tls=tls(folder, "client"))
    assert checks["connection"].status is Status.OK
    assert checks["Triton"].status is Status.BROKEN
    assert "does not answer (UNAVAILABLE" in checks["Triton"].detail
    assert "no replica may be healthy" in checks["Triton"].fix


def test_a_triton_without_the_security_fixes_is_broken(gateway: RunningEnvoy, folder: Path) -> None:
    check = examined(gateway.url, tls=tls(folder, "client"))["Triton"]
    assert check.status is Status.BROKEN
    assert check.detail == "version 2.51.0, the embedded server's, lacks the security fixes of 26.07 (2.71)"
    assert "versions.env" in check.fix
    assert "radserve cluster has no other" in check.fix


@pytest.mark.parametrize(
    ("name", "topic", "told"),
    [
        (None, "connection", ("wants a client certificate", "--tls-cert")),
        ("stranger", "connection", ("another authority signed it", "clients-ca.crt")),
        ("expired", "own certificate", ("expired on", "renew")),
    ],
)
def test_a_client_certificate_that_does_not_do_is_told(
    gateway: RunningEnvoy, folder: Path, name: str | None, topic: str, told: tuple[str, str]
) -> None:
    checks = examined(gateway.url, tls=tls(folder, name))
    (broken,) = [what for what, check in checks.items() if check.status is Status.BROKEN]
    assert broken == topic
    assert told[0] in checks[topic].detail
    assert told[1] in checks[topic].fix


def test_an_expired_server_certificate_is_told(behind: Behind, folder: Path) -> None:
    place(folder, "expired", "outdated")
    with behind(certificates=str(folder / "outdated")) as gateway:
        checks = examined(gateway.url, tls=tls(folder, "client"))
    assert "shows a certificate that has expired" in checks["connection"].detail
    assert "deploy/OPERATIONS.md" in checks["connection"].fix


def test_another_authority_is_told(gateway: RunningEnvoy, folder: Path) -> None:
    check = examined(gateway.url, tls=tls(folder, None).from_files(folder / "other-ca.pem"))["connection"]
    assert "an authority that is not trusted here" in check.detail
    assert "--tls-ca" in check.fix


def test_another_name_is_told(gateway: RunningEnvoy, folder: Path) -> None:
    check = examined(gateway.url.replace("127.0.0.1", "localhost"), tls=tls(folder, "client"))["connection"]
    assert "shows a certificate for another name" in check.detail
    assert "connect by a name" in check.fix


def test_plain_text_where_tls_is_spoken_is_told(gateway: RunningEnvoy) -> None:
    assert "TLS" in examined(gateway.url)["connection"].detail


def test_tls_where_plain_text_is_spoken_is_told(folder: Path, tmp_path: Path) -> None:
    write_add_one(tmp_path)
    with raw_server(tmp_path) as (_, url):
        assert "listens, but not with TLS" in examined(url, tls=tls(folder, None))["connection"].detail


def test_what_is_no_grpc_is_told() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            check = examined(f"127.0.0.1:{server.server_port}")["connection"]
        finally:
            server.shutdown()
            thread.join()
    assert check.status is Status.BROKEN
    assert "gRPC" in check.detail


def test_a_grpc_server_that_is_no_triton_is_told() -> None:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            check = examined(f"127.0.0.1:{port}")["Triton"]
        finally:
            server.stop(None).wait()
    assert (check.status, check.detail) == (Status.BROKEN, "what answers is no Triton")


def test_what_the_rate_limit_hides_is_not_called_closed(behind: Behind, folder: Path) -> None:
    with behind(burst=1, requests_per_s=1) as gateway:
        checks = examined(gateway.url, tls=tls(folder, "client"))
    told = [checks[name] for name in _CLOSED if checks[name].status is Status.WARNING]
    assert told
    assert all("RESOURCE_EXHAUSTED" in check.detail for check in told)


def test_a_question_that_fails_in_the_middle_ends_in_a_check(behind: Behind, folder: Path) -> None:
    with behind(burst=8, requests_per_s=1) as gateway:
        checks = examined(gateway.url, tls=tls(folder, "radserve-operator"))
    refused = [check for name, check in checks.items() if name.startswith("model ") and check.status is Status.BROKEN]
    assert refused
    assert all(check.fix for check in refused)


def test_an_unknown_name_is_told(folder: Path) -> None:
    check = examined("gateway.invalid:8443", tls=tls(folder, None))["connection"]
    assert "nobody knows this name" in check.detail
    assert "DNS" in check.fix


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        (None, ("Jwt is missing", "give one")),
        ({"exp": 1}, ("Jwt is expired", "get another")),
        ({"aud": "pacs"}, ("Audiences in Jwt are not allowed", "get another")),
    ],
)
def test_a_token_that_is_refused_is_told(
    behind: Behind,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    claims: dict[str, Any] | None,
    told: tuple[str, str],
) -> None:
    tokens = Tokens(issuer="hospital", audience="radserve", jwks=str(write_issuer(folder)))
    if claims is not None:
        monkeypatch.setenv("RADSERVE_TOKEN", token(folder, **claims))
    with behind(tokens=tokens, mutual_tls=False) as gateway:
        options = ClientOptions.load(endpoints=(gateway.url,), tls=tls(folder, None))
        check = deployed.examine(options)[-1]
    assert check.status is Status.BROKEN
    assert f"this caller's token is refused ({told[0]}" in check.detail
    assert check.fix.startswith(told[1])


@pytest.fixture
def encrypted(folder: Path, tmp_path: Path) -> Callable[..., AbstractContextManager[Any]]:
    """A function that starts a Triton with TLS and no gateway, with further arguments."""
    write_add_one(tmp_path)
    files = (f"--grpc-server-cert={folder}/gateway.pem", f"--grpc-server-key={folder}/gateway.key")
    return partial(raw_server, tmp_path, "--grpc-use-ssl=true", *files)


def test_a_server_that_anybody_may_change_is_broken(
    encrypted: Callable[..., AbstractContextManager[Any]], folder: Path
) -> None:
    with encrypted("--model-control-mode=explicit", "--load-model=add_one") as (_, url):
        checks = examined(url, tls=tls(folder, None))
    assert {checks[name].status for name in _CLOSED} == {Status.BROKEN}
    assert "RepositoryModelUnload" in checks["closed: loading of models"].detail
    assert "deploy/docker/entrypoint" in checks["closed: traces"].fix


def test_a_server_as_the_image_starts_it_is_closed(
    encrypted: Callable[..., AbstractContextManager[Any]], folder: Path
) -> None:
    shut = "--grpc-restricted-protocol=shared-memory,trace,logging:radserve=secret"
    key = {"protocol_key": "radserve", "protocol_secret": Secret.from_environment("KEY", {"KEY": "secret"})}
    with encrypted("--model-control-mode=none", shut) as (_, url):
        for own in ({}, key):  # who holds the key asks what others may
            checks = examined(url, tls=tls(folder, None), **own)
            assert {checks[name].status for name in _CLOSED} == {Status.OK}


def test_asking_changes_nothing(encrypted: Callable[..., AbstractContextManager[Any]], folder: Path) -> None:
    def state(url: str) -> list[Any]:
        with triton.InferenceServerClient(url, ssl=True, root_certificates=str(folder / "ca.pem")) as client:
            found: list[Any] = [client.get_model_repository_index(), client.get_system_shared_memory_status()]
            return [*found, client.get_trace_settings(), client.get_log_settings()]

    with encrypted("--model-control-mode=explicit", "--load-model=add_one") as (_, url):
        before = state(url)
        examined(url, tls=tls(folder, None))
        assert state(url) == before


def test_a_development_server_is_no_fault_on_this_machine_and_broken_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_add_one(tmp_path)
    with raw_server(tmp_path) as (_, url):
        here = examined(url)
        monkeypatch.setattr(deployed, "is_loopback", lambda _host: False)
        elsewhere = examined(url, insecure=True)
    assert Status.BROKEN not in {check.status for check in here.values()}
    assert here["Triton"].status is Status.WARNING
    for name in ("plain text", "Triton", "closed: shared memory"):
        assert elsewhere[name].status is Status.BROKEN


def test_plain_text_to_another_host_is_refused_as_the_sdk_does() -> None:
    (check,) = examined("triton.example:8001").values()
    assert check.status is Status.BROKEN
    assert "would not be encrypted" in check.detail


def test_a_contract_that_cannot_be_honoured_is_told(tmp_path: Path) -> None:
    write_add_one(tmp_path)
    config = tmp_path / "add_one" / "config.pbtxt"
    text = config.read_text()
    config.write_text(text.replace(f'schema_version\\":{SCHEMA_VERSION}', 'schema_version\\":99'))
    assert config.read_text() != text
    with raw_server(tmp_path) as (_, url):
        check = examined(url)["model add_one"]
    assert check.status is Status.BROKEN
    assert "99" in check.detail
    assert "install the radserve that exported it" in check.fix


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    write_add_one(tmp_path)
    (tmp_path / "add_one_pipeline" / "1" / "model.onnx").write_bytes(b"garbage")
    with raw_server(tmp_path, "--exit-on-error=false", "--strict-readiness=false") as (_, url):
        checks = examined(url)
    assert checks["model add_one_pipeline"].status is Status.BROKEN
    assert checks["model add_one_pipeline"].detail.startswith("not served: ")


@pytest.mark.parametrize(
    ("ahead_s", "told"),
    [(0, (Status.OK, "within 30 s")), (90, (Status.WARNING, "ahead of")), (-90, (Status.WARNING, "behind"))],
)
def test_a_clock_that_goes_wrong_is_told(
    gateway: RunningEnvoy, folder: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float, told: tuple[Status, str]
) -> None:
    now = time.time()
    monkeypatch.setattr(deployed, "_now", lambda: now - ahead_s)
    check = examined(gateway.url, tls=tls(folder, "client"))["clock"]
    assert check.status is told[0]
    assert told[1] in check.detail


@pytest.mark.parametrize("days", [1, 20_000])
def test_the_end_of_a_certificate_is_read_as_openssl_reads_it(tmp_path: Path, days: int) -> None:
    openssl, files = tool("openssl"), ("-keyout", tmp_path / "key", "-out", tmp_path / "der", "-outform", "DER")
    run(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days), *files, "-subj", "/CN=x")
    told = run(openssl, "x509", "-inform", "DER", "-in", tmp_path / "der", "-noout", "-enddate").stdout.strip()
    end = not_after((tmp_path / "der").read_bytes())
    assert told == f"notAfter={end:%b} {end.day:2} {end:%H:%M:%S %Y} GMT"
