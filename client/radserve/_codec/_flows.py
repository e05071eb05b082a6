"""The calls of a client, as flows: every decision, and no I/O."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from radserve._codec._asked import asked, inferred, public_contract, told_contract
from radserve._codec._call import ContractCell
from radserve._codec._flow import Flow, ListModels, Prepare, Record, Sleep
from radserve._codec._observed import observe, preparing
from radserve._codec._prepare import batches, canary, check_arrays, prepare
from radserve._codec._results import combine, result_type
from radserve._codec._wire import utf8
from radserve.contracts import TextInput
from radserve.errors import (
    ContractError,
    DeadlineExceededError,
    InferenceFailedError,
    InputError,
    ModelNotFoundError,
    RadserveError,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from radserve.results import Result, Tensors
from radserve.telemetry import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from radserve._codec._asked import Endpoints
    from radserve._codec._call import CallOptions
    from radserve._codec._coalesce import Coalescer
    from radserve._codec._prepare import Prepared, Source
    from radserve._codec._results import Prediction
    from radserve.audit import AuditLog
    from radserve.contracts import Contract

T = TypeVar("T")
_SHORT_TEXT = 2**16
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_log = logging.getLogger("radserve")


def prepare_step(step: Prepare) -> Prepared:
    """Carry out a Prepare."""
    with preparing(step):
        return prepare(step.contract, step.source, frame=step.frame, burned_in=step.burned_in)


def is_prepared_at_once(step: Prepare) -> bool:
    """Whether a Prepare takes less than it takes to hand it to a thread: a short text, or an array as it is."""
    if isinstance(step.source, str):
        return isinstance(step.contract.input, TextInput) and len(step.source) <= _SHORT_TEXT
    if not isinstance(step.source, np.ndarray):
        return False
    tensor = step.contract.inputs[0]
    return bool(step.source.dtype == tensor.dtype.numpy) and step.source.shape == tensor.dims


def predict_flow(
    cell: ContractCell, source: Source, call: CallOptions, coalescer: Coalescer | None = None
) -> Flow[Prediction]:
    """Answer one input, by the contract that is served.

    Args:
        cell: The contract in use.
        source: The input.
        call: The options.
        coalescer: Where its inferences meet those of other calls; None sends each alone.
    """
    made: dict[int, Prepared] = {}

    def attempt(contract: Contract, endpoints: Endpoints) -> Flow[Prediction]:
        prepared = made.get(contract.version)
        if prepared is None:
            prepared = yield Prepare(contract=contract, source=source, frame=call.frame, burned_in=call.burned_in)
            made[contract.version] = prepared
        answers = []
        for arrays in batches(prepared, contract.max_batch_size):
            answers.append((yield from inferred(contract, arrays, call, endpoints, coalescer)))  # noqa: PERF401 - no comprehension yields
        result = combine(contract, prepared, answers)
        observe(contract, prepared, result)
        return result

    flow = _by_current_contract(cell, attempt, call)
    return (yield from flow if call.audit is None else _audited("predict", cell, call, call.audit, flow, made=made))


def infer_flow(
    cell: ContractCell,
    inputs: Mapping[str, NDArray[Any]] | Callable[[Contract], Mapping[str, NDArray[Any]]],
    call: CallOptions,
) -> Flow[Tensors]:
    """Arrays to arrays, by the contract that is served; the arrays may be made of the contract."""

    def attempt(contract: Contract, endpoints: Endpoints) -> Flow[Tensors]:
        arrays = check_arrays(contract, inputs(contract) if callable(inputs) else inputs)
        answer = yield from inferred(contract, arrays, call, endpoints)
        return Tensors(
            model=contract.name, version=contract.version, request_id=answer.request_id, arrays=answer.arrays
        )

    flow = _by_current_contract(cell, attempt, call)
    return (yield from flow if call.audit is None else _audited("infer", cell, call, call.audit, flow))


def contract_flow(name: str, call: CallOptions, wanted: type[Result] | None = None) -> Flow[Contract]:
    """The contract of a public model.

    Args:
        name: Its name.
        call: The options.
        wanted: What it must answer; None takes any.
    """
    if not isinstance(name, str) or not name:
        msg = "name the model as the server knows it, for example client.model('chest_xray')"
        raise InputError(msg)
    utf8(name)
    read, _ = yield from told_contract(name, call)
    contract = public_contract(name, read)
    if wanted is not None and not issubclass(result_type(contract), wanted):
        msg = f"model {name} is of task {contract.task.value}: it answers no {wanted.__name__}"
        raise InputError(msg)
    return contract


def models_flow(call: CallOptions) -> Flow[tuple[Contract, ...]]:
    """The contracts of all public models, by name.

    One that this SDK cannot honour is logged and left out; it must not hide the others.

    Raises:
        ContractError: There are such models, and no others.
    """
    return (yield from _models(call, {}))


def _models(call: CallOptions, known: dict[str, Contract | None]) -> Flow[tuple[Contract, ...]]:
    """As ``models_flow``, but models whose contract is known, or that have none, are not read again."""
    listed = yield from asked(None, lambda avoid, _: ListModels(avoid=avoid), call, call.endpoints)
    refused = []
    for name in listed.message:
        if name in known:
            continue
        try:
            known[name], _ = yield from told_contract(name, call, listed.endpoint)
        except ModelNotFoundError:  # unloaded since it was listed
            continue
        except ContractError as error:
            known[name] = None
            refused.append(error)
    found = tuple(contract for name in listed.message if (contract := known.get(name)) is not None)
    if refused and not found:
        raise refused[0]
    for reason in refused:
        _log.warning("left out: %s", one_line(str(reason)))
    return found


def health_flow(name: str | None, call: CallOptions) -> Flow[dict[str, float]]:
    """Seconds that a real inference on harmless data took, of one model or of all public ones."""
    taken_s: dict[str, float] = {}
    yield from _check(name, call, {}, taken_s)
    return taken_s


def _check(
    name: str | None, call: CallOptions, known: dict[str, Contract | None], taken_s: dict[str, float]
) -> Flow[None]:
    """Ask the models that have not answered yet, one after the other; those that answer are added."""
    contracts = (yield from _models(call, known)) if name is None else ((yield from contract_flow(name, call)),)
    if not contracts:
        msg = "the server serves no public model: publish one to its repository"
        raise ModelNotFoundError(msg)
    for contract in contracts:
        if contract.name in taken_s:
            continue
        known.pop(contract.name, None)  # read again, should it fail
        begin = time.perf_counter()
        yield from infer_flow(ContractCell(contract), canary, call)
        taken_s[contract.name] = time.perf_counter() - begin
        known[contract.name] = contract


def wait_flow(name: str | None, call: CallOptions) -> Flow[None]:
    """Wait until ``health_flow`` succeeds, as long as waiting can help; models that answered are not asked again."""
    last: ServerError | None = None
    known: dict[str, Contract | None] = {}
    taken_s: dict[str, float] = {}
    pause_s = _SHORTEST_PAUSE_S
    while True:
        try:
            yield from _check(name, call, known, taken_s)
        except (ServerUnavailableError, ServerOverloadedError, ModelNotFoundError, InferenceFailedError) as error:
            last = error
        except DeadlineExceededError as error:
            last = last or error
        else:
            return
        remaining_s = call.deadline.remaining_or_zero_s()
        if not remaining_s:
            msg = f"the server was not ready within {call.deadline.timeout_s:g} s: {last}"
            raise DeadlineExceededError(msg, model=name, code=last.code)
        yield Sleep(seconds=min(pause_s, remaining_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _audited(
    action: str,
    cell: ContractCell,
    call: CallOptions,
    audit: AuditLog,
    flow: Flow[T],
    *,
    made: Mapping[int, Prepared] | None = None,
) -> Flow[T]:
    """Note a question and what came of it, before its answer is given.

    Args:
        action: What is asked.
        cell: Whom.
        call: The options.
        audit: Where it is noted.
        flow: Asks.
        made: What was prepared so far, to say what it was asked about.
    """

    def record(outcome: str) -> Record:
        contract = cell.contract
        prepared = list((made or {}).values())
        entry = partial(
            audit.record,
            action,
            model=contract.name,
            version=contract.version,
            contract_sha256=contract.sha256,
            request_id=call.request_id,
            sop_instance_uids=prepared[-1].sop_instance_uids if prepared else (),
            outcome=outcome,
        )
        turn = threading.Lock()
        return Record(write=lambda: entry() if turn.acquire(blocking=False) else None)

    step: Record | None = None
    try:
        try:
            answer = yield from flow
        except RadserveError as error:
            step = record(type(error).__name__)
            yield step
            raise
        step = record("answered")
        yield step
    except BaseException:  # mostly GeneratorExit, as the caller gave up: no step can follow
        try:
            (step or record("interrupted")).write()
        except RadserveError:
            _log.error("the audit log cannot be written: a question that was interrupted is not in it")
        raise
    return answer


def _by_current_contract(
    cell: ContractCell, attempt: Callable[[Contract, Endpoints], Flow[T]], call: CallOptions
) -> Flow[T]:
    """Go on where a server does not serve the contract's version.

    A newer contract replaces the known one, and the input is prepared again by
    it; so does an older one, after a rollback, once in a call. A server that is
    behind the known one, while the servers get a new version one after the
    other, is left aside in this call, and so is the one that failed, where
    another one tells the contract.
    """
    contract, endpoints, went_back = cell.contract, call.endpoints, False
    missing: list[ModelNotFoundError] = []
    try:
        while True:
            try:
                return (yield from attempt(contract, endpoints))
            except ModelNotFoundError as error:
                missing.append(error)
            failed = missing[-1].endpoint
            read, endpoint = yield from told_contract(contract.name, call, failed)
            served = public_contract(contract.name, read)
            without = {failed} if served.version == contract.version else {failed, endpoint}
            others = tuple(one for one in endpoints if one not in without)
            is_newer = served.version > contract.version  # as often as it is published, within the call's time
            if is_newer or (served.version < contract.version and not others and not went_back):
                cell.contract = contract = served
                endpoints, went_back = (endpoint,), went_back or not is_newer
            elif 0 < len(others) < len(endpoints):  # else nothing has changed, and this would have no end
                endpoints = others
            else:
                raise missing[-1]
    finally:
        missing.clear()  # an error that this frame holds would hold this frame, and with it the pixels
