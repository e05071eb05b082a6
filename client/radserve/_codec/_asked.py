"""One call of a flow: made, made again where that is safe, and what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from radserve._codec._coalesce import may_be_anothers
from radserve._codec._decode import read_contract, to_answer
from radserve._codec._flow import Ask, Flow, Infer, IsReady, Join, ReadConfig, Reply, Sleep
from radserve._codec._retry import next_attempt
from radserve._codec._wire import to_request
from radserve.errors import ContractError, ModelNotFoundError, Retry, ServerError, ServerUnavailableError
from radserve.telemetry import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from radserve._codec._call import CallOptions
    from radserve._codec._coalesce import Coalescer
    from radserve._codec._decode import Answer
    from radserve._codec._flow import Call
    from radserve.contracts import Contract

Endpoints: TypeAlias = "tuple[str, ...]"


def public_contract(name: str, contract: Contract | None) -> Contract:
    """The contract that a model was found to have.

    Raises:
        ContractError: None.
    """
    if contract is None:
        msg = f"model {one_line(name)} has no radserve contract: name a public model, see 'radserve models'"
        raise ContractError(msg)
    return contract


def inferred(
    contract: Contract,
    arrays: Mapping[str, NDArray[Any]],
    call: CallOptions,
    endpoints: Endpoints,
    coalescer: Coalescer | None = None,
) -> Flow[Answer]:
    """The answer to arrays that fit the contract.

    Where they went in one request with others, and that failed, they are sent once more, alone: one
    item that a model fails on, or dies of, takes no other one with it.

    Args:
        contract: The contract.
        arrays: By tensor name, batch axis in front.
        call: The options.
        endpoints: Those to ask.
        coalescer: Where they meet others; None sends them alone.
    """

    def infer(avoid: frozenset[str], remaining_s: float) -> Infer:
        in_queue_s = remaining_s if call.queue_timeout_s is None else min(remaining_s, call.queue_timeout_s)
        request = to_request(
            contract, arrays, request_id=call.request_id, priority=call.priority, queue_timeout_s=in_queue_s
        )
        return Infer(request=request, avoid=avoid)

    item = None
    if coalescer is not None:
        item = coalescer.item(contract, arrays, call, frozenset(call.endpoints).difference(endpoints))
    if item is None:
        reply = yield from asked(contract.name, infer, call, endpoints)
    else:
        given_s = call.deadline.remaining_or_zero_s()
        failures: list[ServerError] = []
        try:
            answer: Answer = yield Join(item=item)
        except ServerError as error:
            failures.append(error)
        else:
            return answer
        left_s = call.deadline.remaining_or_zero_s()
        alone = item.is_shared and may_be_anothers(failures[0], waited_s=given_s - left_s, remaining_s=left_s)
        reply = yield from asked(contract.name, infer, call, endpoints, failures, at_once=alone)
    batch_size = len(next(iter(arrays.values()))) if contract.max_batch_size else 0
    return to_answer(contract, reply.message, batch_size=batch_size, request_id=call.request_id)


def told_contract(name: str, call: CallOptions, endpoint: str | None = None) -> Flow[tuple[Contract | None, str]]:
    """A model's contract, if it has one, and which server told it: the one named, unless that fails."""

    def read(avoid: frozenset[str], _: float) -> ReadConfig:
        return ReadConfig(model=name, avoid=avoid, endpoint=None if endpoint in avoid else endpoint)

    reply = yield from asked(name, read, call, call.endpoints)
    if reply.message.name != name:
        msg = f"the server answers for another model than {one_line(name)}: check what stands at {reply.endpoint}"
        raise ContractError(msg)
    return read_contract(reply.message), reply.endpoint


def asked(
    model: str | None,
    make: Callable[[frozenset[str], float], Call],
    call: CallOptions,
    endpoints: Endpoints,
    failures: list[ServerError] | None = None,
    *,
    at_once: bool = False,
) -> Flow[Reply]:
    """Make one call, again where that is safe.

    Args:
        model: What it is about, for errors.
        make: The call, of endpoints to avoid and of the seconds that are left.
        call: The options.
        endpoints: Those to ask; the others are avoided.
        failures: What an attempt made before failed with; emptied.
        at_once: Whether that one is followed by another one whatever it failed with. A request
            which kills servers must not walk: what follows counts as its being made again.
    """
    not_these = frozenset(call.endpoints).difference(endpoints)
    avoid = not_these
    failures = [] if failures is None else failures
    try:
        if failures and at_once:
            if failures[0].retry is Retry.ONCE_ELSEWHERE and set(endpoints) - {failures[0].endpoint}:
                avoid |= {cast("str", failures[0].endpoint)}
            failures[0].retry = Retry.ONCE_ELSEWHERE
        elif failures:
            avoid = not_these | (yield from _pause(failures, call, endpoints))
        while True:
            remaining_s = call.deadline.remaining_s(model)
            try:
                reply: Reply = yield Ask(call=make(avoid, remaining_s), timeout_s=remaining_s)
            except ServerError as error:
                failures.append(error)
            else:
                return reply
            avoid = not_these | (yield from _pause(failures, call, endpoints))
    finally:
        failures.clear()  # as in _by_current_contract


def _pause(failures: list[ServerError], call: CallOptions, endpoints: Endpoints) -> Flow[frozenset[str]]:
    """Wait as long as the next attempt is to; gives the endpoints that it avoids.

    Raises:
        ServerError: There is none: what the latest one failed with.
    """
    if isinstance(failures[-1], ModelNotFoundError):
        failures[-1] = yield from _missing(failures[-1], call)
    left_s = call.deadline.remaining_or_zero_s()
    wait = next_attempt(call.retry, failures, endpoints, left_s, call.random)
    if wait is None:
        raise failures[-1]
    if wait.seconds:
        yield Sleep(seconds=wait.seconds)
    return wait.avoid


def _missing(error: ModelNotFoundError, call: CallOptions) -> Flow[ServerError]:
    """Tell a model that is not served from a server that is shutting down and denies all of them."""
    try:
        ready = yield Ask(call=IsReady(endpoint=error.endpoint), timeout_s=call.deadline.remaining_s(error.model))
        if ready.message:
            return error
        if error.model is not None and error.version is not None:
            # A server is not ready either while it loads the version that follows the one asked for.
            read = ReadConfig(model=error.model, endpoint=error.endpoint)
            reply = yield Ask(call=read, timeout_s=call.deadline.remaining_s(error.model))
            if public_contract(error.model, read_contract(reply.message)).version != error.version:
                return error
    except (ServerError, ContractError):
        pass
    name = one_line(error.model or "")
    msg = f"model {name} is being loaded, or the server is shutting down: try again later or elsewhere"
    return ServerUnavailableError(
        msg,
        model=error.model,
        version=error.version,
        request_id=error.request_id,
        code=error.code,
        endpoint=error.endpoint,
        retry=Retry.ELSEWHERE,
    )
