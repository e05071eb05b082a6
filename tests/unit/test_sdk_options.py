"""Options of the client: where they come from, and what they refuse."""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from radserve import AsyncClient, Client
from radserve.audit import AuditLog
from radserve.contracts import Policy
from radserve.errors import InputError
from radserve.options import TLS, ClientOptions, RetryPolicy, Secret
from radserve.options._load import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1:8001"


def options(**given: Any) -> ClientOptions:
    return ClientOptions(endpoints=(HOST,), **given)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "given",
    [
        {"endpoints": ()},
        {"endpoints": HOST},
        {"endpoints": (HOST, HOST)},
        {"protocol_key": "key"},
        {"timeout_s": float("inf")},
        {"timeout_s": 0},
        {"keepalive_s": 299},
        {"max_message_bytes": 2**31},
        {"coalesce": -1},
        {"coalesce": True},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ClientOptions(**{"endpoints": (HOST,), **given})


@pytest.mark.parametrize(
    "given",
    [{"attempts": 0}, {"attempts": 1.5}, {"first_backoff_s": 0}, {"first_backoff_s": 3, "longest_backoff_s": 2}],
    ids=str,
)
def test_a_retry_policy_that_makes_no_schedule_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RetryPolicy(**given)


def test_closer_pings_are_allowed_where_the_servers_permit_them() -> None:
    assert options(keepalive_s=10, keepalive_permitted=True).keepalive_s == 10


def test_given_goes_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = write(tmp_path / "c", "[radserve]\nendpoints = f:1\ntimeout_s = 1\nretry_attempts = 7\nkeepalive_s = 400\n")
    environ = {"RADSERVE_CONFIG": str(file), "RADSERVE_TIMEOUT_S": "2", "RADSERVE_RETRY_ATTEMPTS": "8"}
    loaded = ClientOptions.load(environ=environ, timeout_s=3.0, keepalive_s=None)
    assert loaded == ClientOptions(endpoints=("f:1",), timeout_s=3.0, retry=RetryPolicy(attempts=8), keepalive_s=400.0)


@pytest.fixture
def settings(tmp_path: Path, pems: Path) -> dict[str, str]:
    """A value for every setting, none of them the default."""
    pem, own = str(pems / "one.pem"), str(pems / "one.key")
    secret = str(write(tmp_path / "secret", "secret"))
    key = str(write(tmp_path / "site-key", "k" * 31 + "\n"))
    return {
        "endpoints": "a:1, b:2", "tls": "yes", "tls_ca": pem, "tls_key": own, "tls_cert": pem,
        "token_file": secret, "protocol_key": "k", "protocol_secret_file": secret, "insecure": "true",
        "timeout_s": "5", "retry_attempts": "2", "retry_first_backoff_s": "0.2", "retry_longest_backoff_s": "0.4",
        "retry_overload": "on", "shared_memory": "1", "keepalive_s": "20", "keepalive_permitted": "yes",
        "max_message_bytes": "1048576", "coalesce": "0", "burned_in_annotation": "refuse",
        "audit_file": str(tmp_path / "audit.jsonl"), "audit_key_file": key, "audit_actor": "PACS",
    }  # fmt: skip


@pytest.fixture(params=["environment", "file"])
def loaded(request: pytest.FixtureRequest, settings: dict[str, str], tmp_path: Path) -> ClientOptions:
    """Options of which each was set, in one of the two ways."""
    if request.param == "environment":
        return ClientOptions.load(environ={f"RADSERVE_{name.upper()}": value for name, value in settings.items()})
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    return ClientOptions.load(file=write(tmp_path / "c", f"[radserve]\n{lines}\n"), environ={})


def test_options_are_what_the_environment_or_the_file_says(
    loaded: ClientOptions, settings: dict[str, str], tmp_path: Path, pems: Path
) -> None:
    pem, own, secret = pems / "one.pem", pems / "one.key", tmp_path / "secret"
    assert settings.keys() == SETTINGS.keys()
    assert loaded == ClientOptions(
        endpoints=("a:1", "b:2"),
        tls=TLS.from_files(pem, own, pem),
        token=Secret.from_file(secret),
        protocol_key="k",
        protocol_secret=Secret.from_file(secret),
        insecure=True,
        timeout_s=5.0,
        retry=RetryPolicy(attempts=2, first_backoff_s=0.2, longest_backoff_s=0.4, retry_overload=True),
        shared_memory=True,
        keepalive_s=20.0,
        keepalive_permitted=True,
        max_message_bytes=2**20,
        coalesce=0,
        burned_in_annotation=Policy.REFUSE,
        audit=loaded.audit,
    )


def left_at_default(options: Any) -> Iterator[str]:
    """Names of the fields, those of parts included, that were not set."""
    for field in fields(options):
        value = getattr(options, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(value):
            yield from (f"{field.name}.{name}" for name in left_at_default(value))
        elif value == default and not field.name.startswith("_"):
            yield field.name


def test_no_field_was_forgotten(loaded: ClientOptions) -> None:
    assert list(left_at_default(loaded)) == []
    assert "retry.attempts" in left_at_default(options())


def test_the_audit_log_is_written_where_by_whom_and_with_which_key_the_settings_say(
    loaded: ClientOptions, settings: dict[str, str]
) -> None:
    assert loaded.audit is not None
    loaded.audit.record(
        "predict", model="m", version=1, contract_sha256="0", request_id="r", sop_instance_uids=["1.2"], outcome="o"
    )
    entry = json.loads(Path(settings["audit_file"]).read_text())
    expected = AuditLog("x", site_key=Path(settings["audit_key_file"]).read_bytes(), actor="x").hashed("1.2")
    assert (entry["actor"], entry["inputs"]) == ("PACS", [expected])


def test_an_audit_log_that_was_made_hides_the_one_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "c", "[radserve]\naudit_file = a\naudit_key_file = /nowhere\naudit_actor = a\n")
    made = AuditLog(tmp_path / "a", site_key=b"k" * 32, actor="a")
    assert ClientOptions.load(file=file, environ={}, endpoints=HOST, audit=made).audit is made


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"RADSERVE_AUDIT_ACTOR": ""}, "audit_actor not given"),
        ({"RADSERVE_AUDIT_FILE": "", "RADSERVE_AUDIT_KEY_FILE": ""}, "audit_file and audit_key_file not given"),
        ({"RADSERVE_AUDIT_KEY_FILE": "/nowhere/key"}, "cannot read the file /nowhere/key"),
        ({"RADSERVE_AUDIT_KEY_FILE": "/dev/null"}, "32 random bytes or more"),
    ],
    ids=str,
)
def test_no_client_runs_with_half_an_audit_log(settings: dict[str, str], changed: dict[str, str], told: str) -> None:
    environ = {f"RADSERVE_{name.upper()}": value for name, value in settings.items()} | changed
    with pytest.raises(InputError, match=told):
        ClientOptions.load(environ=environ)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timeout_s = soon", "timeout_s .* must be seconds"),
        ("insecure = perhaps", "insecure .* must be yes or no"),
        ("retry_attempts = 1.5", "must be a whole number"),
        ("burned_in_annotation = ask", "must be refuse or accept"),
        ("timout_s = 3", r"timout_s in .* is no setting: did you mean timeout_s\?"),
        ("colour = 3", "no setting; there are endpoints, tls"),
        ("token = ZZCANARYZZ", "name a file that holds it with token_file"),
        ("endpoints = a:1\nendpoints = b:1", "no configuration file"),
        ("\n[other]", "one section"),
        ("just text", "no configuration file"),
    ],
)
def test_a_malformed_file_is_refused_without_telling_what_it_holds(tmp_path: Path, text: str, told: str) -> None:
    file = write(tmp_path / "c", f"[radserve]\n{text}\n")
    with pytest.raises(InputError, match=told) as caught:
        ClientOptions.load(file=file, environ={}, endpoints=HOST)
    assert "ZZCANARYZZ" not in str(caught.value)


def test_a_file_that_is_not_there_and_a_server_that_is_not_named_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the configuration file"):
        ClientOptions.load(environ={"RADSERVE_CONFIG": str(tmp_path / "none")})
    with pytest.raises(InputError, match="RADSERVE_ENDPOINTS"):
        ClientOptions.load(environ={})


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(InputError, match="no setting"):
        ClientOptions.load(environ={}, endpoints=HOST, timeout=3)


@pytest.mark.parametrize("name", ["tls", "token", "protocol_secret", "retry", "audit"])
def test_an_object_is_asked_for_by_how_it_is_made(name: str) -> None:
    expected = rf"{name} must be an? \w+, for example (TLS|Secret|RetryPolicy|AuditLog)[.(]"
    makes: tuple[Callable[..., object], ...] = (ClientOptions, partial(ClientOptions.load, environ={}))
    for make in makes:
        with pytest.raises(InputError, match=expected) as caught:
            make(endpoints=(HOST,), **{name: "ZZCANARYZZ"})
        assert "ZZCANARYZZ" not in str(caught.value)


def test_objects_stand_above_environment_and_file(tmp_path: Path) -> None:
    log, retry = AuditLog(tmp_path / "a", site_key=b"k" * 32, actor="a"), RetryPolicy(attempts=1)
    environ = {"RADSERVE_ENDPOINTS": HOST, "RADSERVE_TIMEOUT_S": "7", "RADSERVE_RETRY_ATTEMPTS": "9"}
    loaded = ClientOptions.load(environ=environ, audit=log, retry=retry)
    assert (loaded.audit, loaded.retry, loaded.timeout_s) == (log, retry, 7)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_takes_an_audit_log_on_top_of_all_else(
    kind: type[Client | AsyncClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RADSERVE_ENDPOINTS", HOST)
    log = AuditLog(tmp_path / "a", site_key=b"k" * 32, actor="a")
    for given in (None, options()):
        client = kind(audit=log, options=given)
        assert client._session.options.audit is log
        assert client.url == HOST


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("timeout_s", "0", "timeout_s must be a finite number"),
        ("retry_attempts", "0", "attempts must be a whole number"),
        ("endpoints", "nowhere", "host:port"),
        ("tls_ca", "/nowhere/ca.pem", "cannot read the file /nowhere/ca.pem"),
        ("token_file", "/nowhere/token", "cannot read"),
        ("timeout_s", "soon", "must be seconds"),
    ],
)
def test_what_is_refused_says_where_it_stands(tmp_path: Path, name: str, value: str, told: str) -> None:
    endpoints = {} if name == "endpoints" else {"endpoints": HOST}
    with pytest.raises(InputError, match=f"{told}.*RADSERVE_{name.upper()}|^RADSERVE_{name.upper()} {told}"):
        ClientOptions.load(environ={f"RADSERVE_{name.upper()}": value}, **endpoints)
    file = write(tmp_path / "c", f"[radserve]\n{name} = {value}\n")
    with pytest.raises(InputError, match=f"{told}.*{name} in {file}|^{name} in {file} {told}"):
        ClientOptions.load(file=file, environ={}, **endpoints)


def test_an_argument_is_not_blamed_on_the_environment() -> None:
    with pytest.raises(InputError) as caught:
        ClientOptions.load(environ={"RADSERVE_TIMEOUT_S": "3", "RADSERVE_KEEPALIVE_S": "400"}, timeout_s=0)
    assert "RADSERVE_" not in str(caught.value).replace("RADSERVE_ENDPOINTS", "")


def test_a_misspelt_variable_is_told_once_without_its_value(caplog: pytest.LogCaptureFixture) -> None:
    # Kubernetes sets the last two where a service is named radserve.
    names = ("TIMEOUTS_S", "TRITONSERVER", "PORT", "SERVICE_HOST")
    environ = dict.fromkeys((f"RADSERVE_{name}" for name in names), "ZZCANARYZZ")
    for _ in range(2):
        ClientOptions.load(environ=environ, endpoints=HOST)
    (record,) = caplog.records
    assert "no setting is read from RADSERVE_TIMEOUTS_S: did you mean RADSERVE_TIMEOUT_S?" in record.getMessage()
    assert "ZZCANARYZZ" not in caplog.text


@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_secret_is_read_again_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    def replace(value: str) -> None:
        monkeypatch.setenv("RADSERVE_TOKEN", value)
        write(tmp_path / "new", f"{value}\n").replace(tmp_path / "token")

    replace("Zfirst")
    given = {"token_file": tmp_path / "token"} if source == "file" else {}
    loaded = ClientOptions.load(environ={} if given else None, endpoints=HOST, **given)
    assert loaded.token is not None
    assert loaded.token.read() == "Zfirst"
    replace("Zsecond")
    assert loaded.token.read() == "Zsecond"
    replace("")  # in the middle of being replaced
    assert loaded.token.read() == "Zsecond"
    assert "Zfirst" not in repr(loaded)
    assert "Zsecond" not in repr(loaded)


def test_a_secret_at_a_higher_level_hides_the_one_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADSERVE_TOKEN", "environment")
    file = write(tmp_path / "c", f"[radserve]\ntoken_file = {write(tmp_path / 'low', 'low')}\n")
    high = write(tmp_path / "high", "high")
    cases: tuple[tuple[str, dict[str, Any]], ...] = (("environment", {}), ("high", {"token_file": high}))
    for expected, given in cases:
        token = ClientOptions.load(file=file, endpoints=HOST, **given).token
        assert token is not None
        assert token.read() == expected
    with pytest.raises(InputError, match="twice"):
        ClientOptions.load(endpoints=HOST, environ={**os.environ, "RADSERVE_TOKEN_FILE": str(high)})


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", "ärgerlich".encode()])
def test_a_secret_that_no_header_can_carry_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(InputError, match="one line"):
        Secret.from_file(tmp_path / "token")
