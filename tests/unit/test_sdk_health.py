"""What reading a model, listing all of them, health and waiting do: both clients, by the same scripts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from support.scripted import KINDS, Shell, answered, config, failing, is_leaving, is_ready, listing, missing, serving
from support.sdk_contracts import TEXT, contract

from radserve import (
    Classification,
    ContractError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    RequestRejectedError,
    RetryPolicy,
    Segmentation,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from radserve.errors import RadserveError, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scripted import Outcome

    Script = dict[str, list[Outcome]]

refused = failing(ServerUnavailableError, Retry.ELSEWHERE)
full = failing(ServerOverloadedError, Retry.BACK_OFF)
rejected = failing(RequestRejectedError, Retry.NEVER)
unknown = failing(UnauthenticatedError, Retry.NEW_CREDENTIALS)
ONE = RetryPolicy(attempts=1)
AHEAD = "ahead\r\nWARNING forged"
TOO_NEW = config(None, name=AHEAD, text='{"schema_version": 99,\r\n "name": "ahead"}')


@pytest.fixture(params=KINDS)
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shell]:
    def make(script: Script, **given: Any) -> Shell:
        return Shell(request.param, script, monkeypatch, **given)

    return make


def test_a_model_is_read_with_its_contract(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [refused], "b": [serving(7)]})
    model = run(run.client.model, "demo", Classification)
    assert (model.name, model.version) == ("demo", 7)
    assert run.transport.trace == ["ReadConfig a", "ReadConfig b"]


@pytest.mark.parametrize(
    ("outcome", "wanted", "error", "told"),
    [
        (serving(1), Segmentation, InputError, "answers no Segmentation"),
        (config(None), None, ContractError, "radserve models"),
        (config(None, text="{"), None, ContractError, "demo"),
        (config(None, text='{"a\\nb": 1, "schema_version": 3}'), None, ContractError, r"`a\\nb`"),
        (config(contract(TEXT, name="other")), None, ContractError, "another model than demo"),
    ],
    ids=["task", "step", "malformed", "forged", "other"],
)
def test_a_model_that_is_not_what_was_asked_for_is_refused(
    shell: Callable[..., Shell], outcome: Outcome, wanted: Any, error: type[RadserveError], told: str
) -> None:
    run = shell({"a": [outcome]})
    with pytest.raises(error, match=told):
        run(run.client.model, "demo", wanted)


@pytest.mark.parametrize("outcome", [config(None, name=AHEAD), config(None), TOO_NEW], ids=["step", "other", "too new"])
def test_what_is_wrong_with_a_model_is_told_in_one_line(shell: Callable[..., Shell], outcome: Outcome) -> None:
    run = shell({"a": [outcome]})
    with pytest.raises(ContractError, match=r"ahead\\r\\nWARNING forged") as caught:
        run(run.client.model, AHEAD)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["", None, 7, "\udcff"])
def test_a_model_has_a_name(shell: Callable[..., Shell], name: Any) -> None:
    run = shell({"a": []})
    with pytest.raises(InputError, match=r"name the model|lone surrogates"):
        run(run.client.model, name)


def test_one_model_that_this_sdk_cannot_honour_does_not_hide_the_others(
    shell: Callable[..., Shell], caplog: pytest.LogCaptureFixture
) -> None:
    step, gone = config(None, name="demo_step"), failing(ModelNotFoundError, Retry.NEW_CONTRACT)
    run = shell({"a": [listing(AHEAD, "demo", "demo_step", "gone"), TOO_NEW, serving(3), step, gone, is_ready]})
    with caplog.at_level(logging.WARNING, "radserve"):
        found = run(run.client.models)
    assert [(model.name, model.version) for model in found] == [("demo", 3)]
    (line,) = caplog.messages
    assert "ahead" in line
    assert line.isprintable()


def test_where_no_model_can_be_honoured_the_reason_is_told(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [listing(AHEAD), TOO_NEW]})
    with pytest.raises(ContractError, match="ahead"):
        run(run.client.models)


def test_all_models_are_those_of_one_server(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [refused], "b": [listing("demo"), serving(3)]})
    run(run.client.models)
    assert run.transport.trace == ["ListModels a", "ListModels b", "ReadConfig b"]


def test_health_is_an_inference_of_each_model_that_can_be_honoured(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [listing(AHEAD, "demo"), TOO_NEW, serving(3), answered]})
    assert list(run(run.client.health)) == ["demo"]
    assert run.transport.requests[0].raw_input_contents[0][4:] == b"canary"


def test_health_of_a_model_that_is_published_meanwhile_is_good(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [serving(3), missing, is_ready, serving(4), answered]})
    assert list(run(run.client.health, "demo")) == ["demo"]


def test_no_public_model_is_not_healthy(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [listing()]})
    with pytest.raises(ModelNotFoundError, match="publish"):
        run(run.client.health)


def test_waiting_ends_when_the_model_answers(shell: Callable[..., Shell]) -> None:
    stub_is_dead = failing(InferenceFailedError, Retry.NEVER)
    run = shell(
        {"a": [refused, missing, is_leaving, serving(3), stub_is_dead, serving(3), full, serving(3), answered]},
        retry=ONE,
    )
    run(run.client.wait_until_ready, 10, name="demo")
    pauses = [step for step in run.transport.trace if step.startswith("sleep")]
    assert pauses == ["sleep 0.1", "sleep 0.2", "sleep 0.4", "sleep 0.8"]
    assert run.transport.is_played


def test_waiting_asks_ever_more_seldom_but_once_a_second(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [*[refused] * 7, serving(3), answered]}, retry=ONE)
    run(run.client.wait_until_ready, 10, name="demo")
    assert run.transport.trace.count("sleep 1") == 3
    assert run.transport.is_played


def test_waiting_asks_only_the_models_again_that_failed(shell: Callable[..., Shell], caplog: Any) -> None:
    def named(name: str) -> Outcome:
        return config(contract(TEXT, name=name))

    step, first, second, late = (config(None, name="step"), *map(named, ("first", "second", "late")))
    dead = failing(InferenceFailedError, Retry.NEVER)
    all_of_them = listing(AHEAD, "first", "second", "step")
    rounds: list[list[Outcome]] = [
        [all_of_them, TOO_NEW, first, second, step, answered, dead],
        [all_of_them, second, dead],
        [listing(AHEAD, "first", "late", "second", "step"), late, second, answered, answered],
    ]
    run = shell({"a": [outcome for outcomes in rounds for outcome in outcomes]}, retry=ONE)
    run(run.client.wait_until_ready, 10)
    assert run.transport.is_played
    assert [request.model_name for request in run.transport.requests] == ["first", "second", "second", "late", "second"]
    assert len(caplog.messages) == 1


def test_waiting_ends_when_the_model_that_failed_is_withdrawn(shell: Callable[..., Shell]) -> None:
    dead = failing(InferenceFailedError, Retry.NEVER)
    run = shell(
        {"a": [listing("demo", "step"), serving(3), config(None, name="step"), dead, listing("step")]}, retry=ONE
    )
    with pytest.raises(DeadlineExceededError, match="no public model"):
        run(run.client.wait_until_ready, 0.15)
    assert run.transport.is_played


def test_waiting_ends_when_the_time_does_and_says_what_was_wrong(shell: Callable[..., Shell]) -> None:
    dead = failing(ServerUnavailableError, Retry.ELSEWHERE, after_s=1)
    run = shell({"a": [dead, dead, dead]}, retry=ONE)
    with pytest.raises(DeadlineExceededError, match=r"2.5 s: failed"):
        run(run.client.wait_until_ready, 2.5)
    assert run.transport.now == pytest.approx(100 + 3.3)


@pytest.mark.parametrize("outcome", [rejected, unknown, config(None)], ids=["rejected", "unauthenticated", "step"])
def test_waiting_does_not_go_on_where_it_does_not_help(shell: Callable[..., Shell], outcome: Outcome) -> None:
    run = shell({"a": [outcome]}, retry=ONE)
    with pytest.raises((ServerError, ContractError)):
        run(run.client.wait_until_ready, 10, name="demo")
    assert run.transport.trace == ["ReadConfig a"]
