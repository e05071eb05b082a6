"""Tokens, keys and certificates: sent, read again when they are replaced, and told apart when they are wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from support.faulty import NUMBERS, note, write_faulty, x
from support.gateways import Gateway, gateway
from support.proxies import Proxy
from support.repositories import write_add_one
from support.servers import raw_server, wait_until, write_certificate

from radserve import TLS, Client, InputError, ServerUnavailableError, UnauthenticatedError
from radserve.cli import main
from radserve.options import ClientOptions, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("repository")
    write_add_one(repository)
    with raw_server(repository) as (_, running):
        yield running


@pytest.fixture
def gate(url: str) -> Iterator[Gateway]:
    with gateway(url, "good") as running:
        yield running


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """A function that makes a client of one server; it is closed after the test."""
    with ExitStack() as stack:

        def make(endpoint: str, **options: Any) -> Client:
            return stack.enter_context(Client(options=ClientOptions(endpoints=(endpoint,), **options)))

        yield make


def replace(path: Path, content: str) -> Path:
    """Replace a file as a secrets manager does: at once."""
    new = path.with_suffix(".new")
    new.write_text(content)
    return new.replace(path)


def test_a_token_goes_with_every_call_and_a_missing_one_is_told(gate: Gateway, connect: Callable[..., Client]) -> None:
    with pytest.raises(UnauthenticatedError, match="wants credentials"):
        connect(gate.url).model("add_one")
    environ = {"RADSERVE_TOKEN": "good"}
    token = Secret.from_environment("RADSERVE_TOKEN", environ)
    connect(gate.url, token=token).health()
    assert set(gate.tokens[1:]) == {"Bearer good"}
    assert len(gate.tokens) > 4


def test_a_token_is_read_again_when_its_file_is_replaced(
    gate: Gateway, connect: Callable[..., Client], tmp_path: Path
) -> None:
    file = replace(tmp_path / "token", "good\n")
    model = connect(gate.url, token=Secret.from_file(file)).model("add_one")
    gate.token = "better"  # noqa: S105 - of this test
    with pytest.raises(UnauthenticatedError):
        model.infer(x())
    replace(file, "better\n")
    assert model.infer(x())["Y"].tolist() == [[1, 1, 1, 1]]


def test_a_token_that_is_replaced_while_a_call_is_refused_costs_no_answer(
    gate: Gateway, connect: Callable[..., Client], tmp_path: Path
) -> None:
    file = replace(tmp_path / "token", "old")
    gate.on_refusal = lambda: replace(file, "good")
    assert connect(gate.url, token=Secret.from_file(file)).health("add_one")
    assert gate.tokens[:2] == ["Bearer old", "Bearer good"]


def test_a_wrong_token_is_tried_once(gate: Gateway, connect: Callable[..., Client], tmp_path: Path) -> None:
    token = Secret.from_file(replace(tmp_path / "token", "wrong"))
    with pytest.raises(UnauthenticatedError):
        connect(gate.url, token=token).model("add_one")
    assert gate.tokens == ["Bearer wrong"]


def test_the_key_of_a_restricted_protocol_opens_it_and_is_read_again(
    tmp_path: Path, connect: Callable[..., Client]
) -> None:
    write_add_one(tmp_path / "repository")
    file = replace(tmp_path / "secret", "old")
    with raw_server(tmp_path / "repository", "--grpc-restricted-protocol=model-repository:admin=new") as (_, running):
        client = connect(running, protocol_key="admin", protocol_secret=Secret.from_file(file))
        with pytest.raises(UnauthenticatedError, match="protocol_key"):
            client.models()
        replace(file, "new")
        assert [model.name for model in client.models()] == ["add_one"]


def test_certificates_are_read_again_and_calls_in_flight_end_in_peace(
    tmp_path: Path, connect: Callable[..., Client]
) -> None:
    repository = tmp_path / "repository"
    write_faulty(repository)
    for name, signed_by in (("ca", None), ("other", None), ("server", "ca"), ("first", "ca"), ("second", "ca")):
        write_certificate(tmp_path, name, signed_by)
    arguments = ["--grpc-use-ssl-mutual=true", f"--grpc-server-cert={tmp_path}/server.pem"]
    arguments += [f"--grpc-server-key={tmp_path}/server.key", f"--grpc-root-cert={tmp_path}/ca.pem"]

    def become(name: str) -> None:
        for suffix in ("key", "pem"):
            replace(tmp_path / f"ours_{suffix}", (tmp_path / f"{name}.{suffix}").read_text())

    become("first")
    tls = TLS.from_files(tmp_path / "ca.pem", tmp_path / "ours_key", tmp_path / "ours_pem")
    with raw_server(repository, *arguments) as (_, running), Proxy(running) as proxy, ThreadPoolExecutor(1) as pool:
        client = connect(proxy.url, tls=tls, timeout_s=30)
        model = client.model("faulty")
        number = next(NUMBERS)
        call = pool.submit(model.infer, x(held=number), timeout_s=60)
        assert wait_until(note(repository, "busy", number).exists)
        assert proxy.connections == 1
        become("other")
        with pytest.raises(ServerUnavailableError):
            client.model("faulty", timeout_s=5)
        before = proxy.connections
        assert before > 1  # the connection of before is not used any more
        become("second")
        client.model("faulty")
        assert proxy.connections > before
        assert len(client._session.transport._core._replaced) == 1  # that of the call in flight
        note(repository, "let_go", number).touch()
        assert call.result()["Y"][0, 0] == number + 1
        assert client._session.transport._core._replaced == []


@pytest.mark.parametrize("place", ["environment", "file", "file that the environment names"])
def test_the_command_takes_servers_and_secrets_from_environment_and_file(
    gate: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, place: str
) -> None:
    token = replace(tmp_path / "token", "good")
    config = replace(tmp_path / "config", f"[radserve]\nendpoints = {gate.url}\ntoken_file = {token}\n")
    arguments = ["--config", str(config)] if place == "file" else []
    if place == "environment":
        monkeypatch.setenv("RADSERVE_ENDPOINTS", gate.url)
        monkeypatch.setenv("RADSERVE_TOKEN", "good")
    elif not arguments:
        monkeypatch.setenv("RADSERVE_CONFIG", str(config))
    with pytest.raises(SystemExit) as ended:
        main(["models", "--json", *arguments])
    assert ended.value.code == 0
    assert '"add_one"' in capsys.readouterr().out


def test_secrets_never_travel_readable_to_another_host(tmp_path: Path) -> None:
    token = Secret.from_file(replace(tmp_path / "token", "ZZCANARYZZ"))
    options = ClientOptions(endpoints=("triton.example.org:8001",), token=token)
    with pytest.raises(InputError, match="not be encrypted") as caught:
        Client(options=options)
    assert "ZZCANARYZZ" not in f"{options!r} {caught.value}"
