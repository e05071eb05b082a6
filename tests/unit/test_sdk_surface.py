"""Both clients offer the same, but for ``await``; and say where it belongs when they cannot serve."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from radserve import AsyncClient, AsyncModel, Client, ClientClosedError, ClientOptions, InputError, Model, RetryPolicy

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = ((Client, AsyncClient), (Model, AsyncModel))
AWAITED = {
    AsyncClient: {"close", "health", "model", "models", "wait_until_ready"},
    AsyncModel: {"infer", "predict", "prepare"},
}


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def parameters(member: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(member).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


@pytest.mark.parametrize(("plain", "awaited"), PAIRS)
def test_both_shells_have_the_same_members_and_parameters(plain: type, awaited: type) -> None:
    ours, theirs = public(plain), public(awaited)
    assert set(ours) == set(theirs)
    assert parameters(plain) == parameters(awaited) or plain is Model  # made by a client, of its own session
    for name, member in ours.items():
        assert isinstance(member, property) is isinstance(theirs[name], property)
        if not isinstance(member, property):
            assert parameters(member) == parameters(theirs[name]), name


@pytest.mark.parametrize(("plain", "awaited"), PAIRS)
def test_both_shells_say_the_same_of_types(plain: type, awaited: type) -> None:
    for name, member in public(plain).items():
        if callable(member) and name != "predict_many":
            given, returned = _types(member), _types(public(awaited)[name])
            assert given == returned, name


def _types(member: Any) -> dict[str, str]:
    return {name: re.sub(r"\bAsync(Model|Session)", r"\1", told) for name, told in member.__annotations__.items()}


@pytest.mark.parametrize("awaited", [awaited for _, awaited in PAIRS])
def test_what_waits_for_a_server_or_a_file_is_awaited(awaited: type) -> None:
    found = {name for name, member in public(awaited).items() if inspect.iscoroutinefunction(member)}
    assert found == AWAITED[awaited]


@pytest.mark.parametrize("kind", [kind for pair in PAIRS for kind in pair])
def test_every_public_member_is_documented(kind: type) -> None:
    assert kind.__doc__
    for name, member in public(kind).items():
        assert inspect.getdoc(member), name


@pytest.mark.parametrize("kind", [Client, AsyncClient])
class TestOptions:
    """What a client is given, where it comes from, and what holds."""

    def test_a_client_without_a_server_says_how_to_name_one(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        _forget(monkeypatch)
        with pytest.raises(InputError, match="RADSERVE_ENDPOINTS"):
            kind()

    def test_the_environment_names_servers(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        _forget(monkeypatch)
        monkeypatch.setenv("RADSERVE_ENDPOINTS", "127.0.0.1:1,127.0.0.1:2")
        monkeypatch.setenv("RADSERVE_TIMEOUT_S", "3")
        client = kind()
        assert client.url == "127.0.0.1:1, 127.0.0.1:2"
        assert client._session.call(None).deadline.timeout_s == 3
        assert client._session.call(1).deadline.timeout_s == 1

    def test_what_is_given_holds_over_the_environment_and_the_file(
        self, kind: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        _forget(monkeypatch)
        (tmp_path / "radserve.conf").write_text("[radserve]\nendpoints = 127.0.0.1:1\nretry_attempts = 5\n")
        monkeypatch.setenv("RADSERVE_CONFIG", str(tmp_path / "radserve.conf"))
        monkeypatch.setenv("RADSERVE_ENDPOINTS", "127.0.0.1:2")
        client = kind(["127.0.0.1:3", "127.0.0.1:4"], timeout_s=2)
        assert client._session.options.endpoints == ("127.0.0.1:3", "127.0.0.1:4")
        assert client._session.options.retry.attempts == 5

    def test_options_given_leave_the_environment_out(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RADSERVE_ENDPOINTS", "127.0.0.1:2")
        monkeypatch.setenv("RADSERVE_RETRY_ATTEMPTS", "7")
        options = ClientOptions(endpoints=("127.0.0.1:1",), retry=RetryPolicy(attempts=2), timeout_s=9)
        client = kind(options=options, timeout_s=4)
        assert client._session.options == ClientOptions(
            endpoints=("127.0.0.1:1",), retry=RetryPolicy(attempts=2), timeout_s=4
        )

    @pytest.mark.parametrize("url", [7, b"localhost:1", [], [7], ""])
    def test_what_is_no_address_is_refused(self, kind: Any, url: Any) -> None:
        with pytest.raises(InputError):
            kind(url)

    @pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), "soon", 100_000])
    def test_a_time_budget_must_be_finite(self, kind: Any, timeout_s: Any) -> None:
        with pytest.raises(InputError, match="timeout_s"):
            kind("127.0.0.1:1", timeout_s=timeout_s)

    @pytest.mark.parametrize("request_id", ["", "a,b", "a b", "\u00e9", "a\n", "a" * 65, 7, b"a"])
    def test_what_a_log_could_not_tell_as_one_id_is_refused(self, kind: Any, request_id: Any) -> None:
        client = kind("127.0.0.1:1")
        assert client._session.call(None, request_id="a" * 64).request_id == "a" * 64
        with pytest.raises(InputError, match="request_id must be"):
            client._session.call(None, request_id=request_id)

    def test_its_representation_names_its_servers_and_no_secret(self, kind: Any) -> None:
        assert repr(kind("127.0.0.1:1")) == f"<{kind.__name__} of 127.0.0.1:1>"


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RADSERVE_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_that_was_forked_along_says_so_and_leaves_its_parents_connections(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = kind("127.0.0.1:1")
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    for call in (client.models, client.health, lambda: client.model("x"), lambda: client.wait_until_ready(1)):
        with pytest.raises(ClientClosedError, match="after the fork"):
            _finished(call())
    _finished(client.close())
    assert not client._session.transport.is_closed
    monkeypatch.undo()
    _finished(client.close())
    assert "(closed)" in repr(client)
    with pytest.raises(ClientClosedError, match="closed"):
        _finished(client.models())


def _finished(given: Any) -> Any:
    return asyncio.run(given) if inspect.iscoroutine(given) else given
