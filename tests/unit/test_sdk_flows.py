"""What a call does when servers answer, fail, leave or change: both clients, by the same scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.scripted import (
    KINDS,
    Shell,
    answered,
    config,
    failing,
    is_leaving,
    is_ready,
    message_of,
    missing,
    of_another_version,
    replied,
    serving,
)
from support.sdk_contracts import IMAGE, TEXT, contract, tensors

from radserve import (
    Classification,
    ContractError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    Priority,
    RequestRejectedError,
    RetryPolicy,
    ServerOverloadedError,
    ServerUnavailableError,
    UnauthenticatedError,
    _codec,
)
from radserve.errors import RadserveError, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scripted import Outcome

    Script = dict[str, list[Outcome]]

refused = failing(ServerUnavailableError, Retry.ELSEWHERE)
lost = failing(ServerUnavailableError, Retry.ONCE_ELSEWHERE)
silent = failing(DeadlineExceededError, Retry.ONCE_ELSEWHERE, after_s=5)
late = failing(DeadlineExceededError, Retry.NEVER, after_s=30)
full = failing(ServerOverloadedError, Retry.BACK_OFF)
rejected = failing(RequestRejectedError, Retry.NEVER)
unknown = failing(UnauthenticatedError, Retry.NEW_CREDENTIALS)
OVERLOAD = RetryPolicy(retry_overload=True)
ONE = RetryPolicy(attempts=1)
FOUR = RetryPolicy(attempts=4)


@pytest.fixture(params=KINDS)
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shell]:
    def make(script: Script, **given: Any) -> Shell:
        return Shell(request.param, script, monkeypatch, **given)

    return make


# Which servers answer what, by which policy; and what is done then.
ANSWERED: dict[str, tuple[Script, RetryPolicy, str]] = {
    "at once": ({"a": [answered], "b": []}, RetryPolicy(), "Infer a"),
    "not reached, so at once elsewhere": ({"a": [refused], "b": [answered]}, RetryPolicy(), "Infer a, Infer b"),
    "not reached, nobody else: after a pause": (
        {"a": [refused, answered]},
        RetryPolicy(),
        "Infer a, sleep 0.05, Infer a",
    ),
    "the pauses double, up to the longest": (
        {"a": [refused, refused, refused, answered]},
        RetryPolicy(attempts=4, longest_backoff_s=0.3),
        "Infer a, sleep 0.05, Infer a, sleep 0.1, Infer a, sleep 0.15, Infer a",
    ),
    "elsewhere, and where all were asked, after a pause": (
        {"a": [refused, answered], "b": [refused]},
        RetryPolicy(),
        "Infer a, Infer b, sleep 0.1, Infer a",
    ),
    "lost on the way, once elsewhere": ({"a": [lost], "b": [answered]}, RetryPolicy(), "Infer a, Infer b"),
    "lost on the way, nobody else: once more": (
        {"a": [lost, answered]},
        RetryPolicy(),
        "Infer a, sleep 0.05, Infer a",
    ),
    "a silent server, once elsewhere": ({"a": [silent], "b": [answered]}, RetryPolicy(), "Infer a, Infer b"),
    "lost, then not reached: a third server": (
        {"a": [lost], "b": [refused], "c": [answered]},
        RetryPolicy(),
        "Infer a, Infer b, Infer c",
    ),
    "a full queue, if wanted, never at once": (
        {"a": [full], "b": [answered]},
        OVERLOAD,
        "Infer a, sleep 0.15, Infer b",
    ),
    "new credentials, once, at once": ({"a": [unknown, answered]}, RetryPolicy(), "Infer a, Infer a"),
    "a server that leaves denies its models: elsewhere": (
        {"a": [missing, is_leaving, missing], "b": [answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, Infer b",
    ),
    "a server that loads the next version is not ready: its contract": (
        {"a": [missing, is_leaving, serving(4), serving(4), answered]},
        ONE,
        "Infer a, IsReady a, ReadConfig a, ReadConfig a, Infer a",
    ),
    "a server that loads the same version again: elsewhere": (
        {"a": [missing, is_leaving, serving(3)], "b": [answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, Infer b",
    ),
    "a server that left cannot say so": (
        {"a": [missing, refused], "b": [answered]},
        RetryPolicy(),
        "Infer a, IsReady a, Infer b",
    ),
    "a newer contract: prepared again, and sent to who has it": (
        {"a": [missing, is_ready, serving(4), answered], "b": []},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, Infer a",
    ),
    "newer contracts, as often as they are published": (
        {"a": [missing, is_ready, serving(4), missing, is_ready, serving(5), answered]},
        ONE,
        "Infer a, IsReady a, ReadConfig a, Infer a, IsReady a, ReadConfig a, Infer a",
    ),
    "a newer contract that is taken back": (
        {"a": [missing, is_ready, serving(4), missing, is_ready, serving(3), answered]},
        ONE,
        "Infer a, IsReady a, ReadConfig a, Infer a, IsReady a, ReadConfig a, Infer a",
    ),
    "a newer contract is no further attempt": (
        {"a": [missing, is_ready, serving(4), answered]},
        ONE,
        "Infer a, IsReady a, ReadConfig a, Infer a",
    ),
    "a server behind the others: elsewhere": (
        {"a": [missing, is_ready, serving(2)], "b": [answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, Infer b",
    ),
    "all servers went back: their contract": (
        {"a": [missing, is_ready, serving(2)], "b": [missing, is_ready, serving(2), answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, Infer b, IsReady b, ReadConfig b, Infer b",
    ),
    "a model still being loaded at one: elsewhere": (
        {"a": [missing, is_ready, serving(3)], "b": [answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, Infer b",
    ),
    "the server fails while its contract is read: the next one's": (
        {"a": [missing, is_ready, refused], "b": [serving(4), answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, ReadConfig b, Infer b",
    ),
    "it fails, and the next one serves this version: there": (
        {"a": [missing, is_ready, refused], "b": [serving(3), answered], "c": []},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, ReadConfig b, Infer b",
    ),
    "it fails, and so does the one that serves this version: a third server": (
        {"a": [missing, is_ready, refused], "b": [serving(3), refused], "c": [answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, ReadConfig b, Infer b, Infer c",
    ),
    "it fails, and the next one is behind: a third server": (
        {"a": [missing, is_ready, refused], "b": [serving(2)], "c": [answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, ReadConfig b, Infer c",
    ),
    "it fails, and the only other one went back: its contract": (
        {"a": [missing, is_ready, refused], "b": [serving(2), answered]},
        RetryPolicy(),
        "Infer a, IsReady a, ReadConfig a, ReadConfig b, Infer b",
    ),
    "the only server with this version is full: not to another one": (
        {"a": [missing, is_ready, serving(2)], "b": [full, answered]},
        OVERLOAD,
        "Infer a, IsReady a, ReadConfig a, Infer b, sleep 0.15, Infer b",
    ),
}


@pytest.mark.parametrize(("script", "policy", "trace"), ANSWERED.values(), ids=ANSWERED.keys())
def test_a_call_is_answered(shell: Callable[..., Shell], script: Script, policy: RetryPolicy, trace: str) -> None:
    run = shell(script, retry=policy)
    result = run(run.model.predict, "no pneumothorax")
    assert ", ".join(run.transport.trace) == trace
    assert run.transport.is_played
    assert isinstance(result, Classification)
    last = run.transport.requests[-1]
    assert (result.top.label, result.version) == ("opacity", int(last.model_version))
    assert result.version == run.model.version
    assert {request.id for request in run.transport.requests} == {result.provenance.request_id}


FAILED: dict[str, tuple[Script, RetryPolicy, type[RadserveError], str]] = {
    "after the last attempt": (
        {"a": [refused, refused, refused]},
        RetryPolicy(),
        ServerUnavailableError,
        "Infer a, sleep 0.05, Infer a, sleep 0.1, Infer a",
    ),
    "without a second attempt": ({"a": [refused], "b": []}, ONE, ServerUnavailableError, "Infer a"),
    "a request that kills servers does not walk": (
        {"a": [lost], "b": [lost], "c": []},
        FOUR,
        ServerUnavailableError,
        "Infer a, Infer b",
    ),
    "a full queue is left alone": ({"a": [full], "b": []}, RetryPolicy(), ServerOverloadedError, "Infer a"),
    "a malformed request stays one": ({"a": [rejected], "b": []}, RetryPolicy(), RequestRejectedError, "Infer a"),
    "credentials are not guessed": (
        {"a": [unknown, unknown]},
        FOUR,
        UnauthenticatedError,
        "Infer a, Infer a",
    ),
    "the time is over": ({"a": [late], "b": []}, RetryPolicy(), DeadlineExceededError, "Infer a"),
    "an answer that cannot be trusted is not asked for again": (
        {"a": [of_another_version], "b": []},
        RetryPolicy(),
        InferenceFailedError,
        "Infer a",
    ),
    "a model that is gone": (
        {"a": [missing, is_ready, missing, is_ready]},
        RetryPolicy(),
        ModelNotFoundError,
        "Infer a, IsReady a, ReadConfig a, IsReady a",
    ),
    "a model of this version that is not there": (
        {"a": [missing, is_ready, serving(3)]},
        RetryPolicy(),
        ModelNotFoundError,
        "Infer a, IsReady a, ReadConfig a",
    ),
    "no server serves the version that all of them tell": (
        {"a": [missing, is_ready, refused, serving(3)], "b": [serving(3), missing, is_ready, refused]},
        RetryPolicy(),
        ModelNotFoundError,
        "Infer a, IsReady a, ReadConfig a, ReadConfig b, Infer b, IsReady b, ReadConfig b, ReadConfig a",
    ),
    "an older contract is taken once in a call": (
        {"a": [missing, is_ready, serving(2), missing, is_ready, serving(1)]},
        RetryPolicy(),
        ModelNotFoundError,
        "Infer a, IsReady a, ReadConfig a, Infer a, IsReady a, ReadConfig a",
    ),
    "the only server leaves": (
        {"a": [missing, is_leaving, missing, refused, refused]},
        RetryPolicy(),
        ServerUnavailableError,
        "Infer a, IsReady a, ReadConfig a, sleep 0.05, Infer a, sleep 0.1, Infer a",
    ),
    "what is served now is no public model": (
        {"a": [missing, is_ready, config(None)]},
        RetryPolicy(),
        ContractError,
        "Infer a, IsReady a, ReadConfig a",
    ),
}


@pytest.mark.parametrize(("script", "policy", "error", "trace"), FAILED.values(), ids=FAILED.keys())
def test_a_call_fails(
    shell: Callable[..., Shell], script: Script, policy: RetryPolicy, error: type[RadserveError], trace: str
) -> None:
    run = shell(script, retry=policy)
    with pytest.raises(error) as caught:
        run(run.model.predict, "no pneumothorax")
    assert ", ".join(run.transport.trace) == trace
    assert run.transport.is_played
    assert caught.value.__context__ is None


def test_a_pause_longer_than_the_budget_is_not_made(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [refused]})
    with pytest.raises(ServerUnavailableError):
        run(run.model.predict, "x", timeout_s=0.04)
    assert run.transport.trace == ["Infer a"]


def test_one_budget_holds_for_all_attempts(shell: Callable[..., Shell]) -> None:
    slowly = failing(ServerUnavailableError, Retry.ELSEWHERE, after_s=6)
    run = shell({"a": [slowly], "b": [slowly], "c": []}, timeout_s=10)
    with pytest.raises(ServerUnavailableError):
        run(run.model.predict, "x")
    assert run.transport.trace == ["Infer a", "Infer b"]
    first, second = (request.parameters["timeout"].int64_param for request in run.transport.requests)
    assert (first, second) == (10_000_000, 4_000_000)


def test_a_contract_may_describe_another_input_when_it_is_read_again(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [missing, is_ready, config(contract(IMAGE, version=4))]})
    with pytest.raises(RadserveError, match="file"):
        run(run.model.predict, "no pneumothorax")


def test_what_cannot_be_prepared_is_not_sent(shell: Callable[..., Shell]) -> None:
    run = shell({"a": []})
    with pytest.raises(InputError, match="longer"):
        run(run.model.predict, "x" * 65)
    assert run.transport.trace == []


@pytest.mark.parametrize(
    ("given", "sent"),
    [({}, 30_000_000), ({"queue_timeout_s": 0.25}, 250_000), ({"queue_timeout_s": 60}, 30_000_000)],
)
def test_a_request_says_how_long_it_may_wait_and_how_urgent_it_is(
    shell: Callable[..., Shell], given: dict[str, float], sent: int
) -> None:
    run = shell({"a": [answered]})
    run(run.model.predict, "x", priority=Priority.STAT, **given)
    (request,) = run.transport.requests
    assert request.parameters["timeout"].int64_param == sent
    assert request.parameters["priority"].uint64_param == 1


@pytest.mark.parametrize("queue_timeout_s", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_queue_timeout_must_be_a_time(shell: Callable[..., Shell], queue_timeout_s: Any) -> None:
    run = shell({"a": []})
    with pytest.raises(InputError, match="queue_timeout_s"):
        run(run.model.predict, "x", queue_timeout_s=queue_timeout_s)


def test_the_arrays_that_come_back_say_who_gave_them(shell: Callable[..., Shell]) -> None:
    run = shell({"a": [missing, is_ready, serving(4), answered]})
    given = run(run.model.prepare, "no pneumothorax")
    tensors_ = run(run.model.infer, given)
    assert (tensors_.model, tensors_.version, run.model.version) == ("demo", 4, 4)
    assert tensors_.request_id == run.transport.requests[-1].id
    assert sorted(tensors_) == ["DECISIONS", "PROBABILITIES", "TOKEN_COUNT"]
    assert len(tensors_) == 3
    assert tensors_["PROBABILITIES"].tolist() == [[0.25, 0.75]]
    assert repr(tensors_).startswith("<Tensors of demo 4: ")


def test_arrays_unlike_the_contract_are_not_sent(shell: Callable[..., Shell]) -> None:
    run = shell({"a": []}, served=tensors())
    with pytest.raises(InputError, match="NOTE, X"):
        run(run.model.infer, {})
    assert run.transport.trace == []


def test_a_study_too_large_for_one_request_is_sent_in_several() -> None:
    options = _codec.CallOptions(
        deadline=_codec.Deadline(5), endpoints=("a",), retry=RetryPolicy(), random=lambda: 0.5, request_id="r"
    )
    flow = _codec.predict_flow(_codec.ContractCell(contract(TEXT)), "x", options)
    prepared = _codec.prepare(contract(TEXT), "x")
    assert isinstance(next(flow), _codec.Prepare)
    ten = _codec.Prepared(inputs={name: array.repeat(10, axis=0) for name, array in prepared.inputs.items()})
    step = flow.send(ten)
    assert isinstance(step, _codec.Ask)
    assert message_of(step.call.request).inputs[0].shape == [8, 1]  # type: ignore[union-attr]
    reply = answered(None, step.call, "a")  # type: ignore[arg-type]
    step = flow.send(replied(reply, "a"))
    assert isinstance(step, _codec.Ask)
    assert message_of(step.call.request).inputs[0].shape == [2, 1]  # type: ignore[union-attr]
    flow.close()
