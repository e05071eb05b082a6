"""How often an input is prepared in a call, and how long its pixels live."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from support.datasets import TEST_FILES
from support.scripted import Shell, answered, config, failing, is_ready, missing, serving
from support.sdk_contracts import IMAGE, contract

from radserve import RequestRejectedError, ServerError, ServerUnavailableError, _codec
from radserve.errors import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scripted import Outcome

refused = failing(ServerUnavailableError, Retry.ELSEWHERE)
rejected = failing(RequestRejectedError, Retry.NEVER)


def test_an_input_is_prepared_once_for_each_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = {"a": [missing, is_ready, serving(2)], "b": [missing, is_ready, serving(4), answered]}
    run = Shell("sync", behind, monkeypatch)
    steps: list[_codec.Prepare] = []
    monkeypatch.setattr(run.client._session, "run", _noting(steps, run.client._session.run))
    run.model.predict("no pneumothorax")
    assert [step.contract.version for step in steps] == [3, 4]


def _noting(steps: list[_codec.Prepare], run: Callable[..., Any]) -> Callable[..., Any]:
    def prepare(step: _codec.Prepare) -> _codec.Prepared:
        steps.append(step)
        return _codec.prepare_step(step)

    return lambda flow, **given: run(flow, prepare, **given)


@pytest.mark.parametrize(
    "outcomes", [[rejected], [missing, is_ready, config(contract(IMAGE))], [refused, refused, refused]]
)
def test_pixels_do_not_outlive_a_failed_call(monkeypatch: pytest.MonkeyPatch, outcomes: list[Outcome]) -> None:
    run = Shell("sync", {"a": outcomes}, monkeypatch, served=contract(IMAGE))
    kept: list[weakref.ref[Any]] = []

    def prepare(step: _codec.Prepare) -> _codec.Prepared:
        prepared = _codec.prepare_step(step)
        kept.extend(weakref.ref(array) for array in prepared.inputs.values())
        return prepared

    call = run.client._session.call(None)
    flow = _codec.predict_flow(_codec.ContractCell(contract(IMAGE)), TEST_FILES / "CT_small.dcm", call)
    gc.disable()  # whatever waits for it waits for long in a service
    try:
        with pytest.raises(ServerError):
            run.client._session.run(flow, prepare)
        del flow
        assert [reference() is None for reference in kept] == [True]
    finally:
        gc.enable()
