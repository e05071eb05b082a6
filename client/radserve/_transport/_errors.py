"""gRPC's codes and Triton's texts to radserve's errors, in one table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from radserve.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    ModelNotFoundError,
    RequestRejectedError,
    Retry,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN_CHARACTERS = 200
_NO_ANSWER = "no server answers gRPC at {url}: check that it runs, and that this is its gRPC port"
_REQUEST_ID = re.compile(r"\[request id: [^]]*\] ?")


@dataclass(frozen=True, kw_only=True)
class _Meaning:
    """What a code, or a code with a text in it, means.

    Attributes:
        error: The kind to raise.
        advice: What to do, with ``{url}`` and ``{model}`` to be filled in.
        retry: Whether the call may be made again.
        quotes: Whether Triton's text is told, where it is Triton's own, of
            names, types and shapes: that of a step could quote a patient.
    """

    error: type[ServerError]
    advice: str
    retry: Retry = Retry.NEVER
    quotes: bool = False


# Triton says UNAVAILABLE for six things; of a step, the text stands after "in ensemble
# '<name>', ". Every entry is tested against a real server.
_BY_TEXT: tuple[tuple[grpc.StatusCode, str, _Meaning], ...] = (
    (
        grpc.StatusCode.UNAVAILABLE,
        "Exceeds maximum queue size",
        _Meaning(
            error=ServerOverloadedError,
            advice="the queue of {model} is full: try again later, or less at once",
            retry=Retry.BACK_OFF,
        ),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        "Request timeout expired",
        _Meaning(error=ServerOverloadedError, advice="the request waited too long in the queue of {model}: try later"),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        "This protocol is restricted",
        _Meaning(
            error=UnauthenticatedError,
            advice="the server restricts this call to those who hold its key:"
            " give protocol_key and its secret, or name the model",
        ),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        "Server is stopping",
        _Meaning(
            error=ServerUnavailableError,
            advice="the server is shutting down: try again later or elsewhere",
            retry=Retry.ELSEWHERE,
        ),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        # Of a version that was replaced or unloaded.
        "is not at ready state",
        _Meaning(
            error=ModelNotFoundError,
            advice="the server does not serve this version of {model} any more",
            retry=Retry.NEW_CONTRACT,
        ),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        # gRPC's own, before anything was sent; a failed TLS handshake, too.
        "failed to connect to all addresses",
        _Meaning(error=ServerUnavailableError, advice=_NO_ANSWER, retry=Retry.ELSEWHERE),
    ),
    (
        grpc.StatusCode.UNAVAILABLE,
        "DNS resolution failed",
        _Meaning(
            error=ServerUnavailableError, advice="the host of {url} is not known: check its name", retry=Retry.ELSEWHERE
        ),
    ),
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "larger than max",
        _Meaning(
            error=RequestRejectedError,
            advice="a message is larger than its receiver allows: send fewer items in one call, or raise"
            " max_message_bytes",
        ),
    ),
    (
        grpc.StatusCode.INTERNAL,
        "Unable to open shared memory region",
        _Meaning(
            error=RequestRejectedError,
            advice="the server at {url} cannot open this process's shared memory: run both as one user and, in"
            " containers, with one /dev/shm, or leave shared_memory out",
        ),
    ),
    (
        grpc.StatusCode.NOT_FOUND,
        "Unable to find shared memory region",
        _Meaning(error=ServerUnavailableError, advice="the server at {url} was started anew", retry=Retry.ELSEWHERE),
    ),
    (
        grpc.StatusCode.INTERNAL,
        "is not healthy",
        _Meaning(
            error=InferenceFailedError,
            advice="a process of {model} has died at {url}: restart that server",
            retry=Retry.ONCE_ELSEWHERE,
        ),
    ),
)

_BY_CODE: Mapping[grpc.StatusCode, _Meaning] = {
    grpc.StatusCode.UNAVAILABLE: _Meaning(error=ServerUnavailableError, advice=_NO_ANSWER, retry=Retry.ONCE_ELSEWHERE),
    grpc.StatusCode.CANCELLED: _Meaning(
        error=ServerUnavailableError,
        advice="the server gave up the call, it may be shutting down: try again",
        retry=Retry.ONCE_ELSEWHERE,
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: _Meaning(
        error=DeadlineExceededError, advice="no answer in time: allow more with timeout_s, or check the server's load"
    ),
    grpc.StatusCode.NOT_FOUND: _Meaning(
        error=ModelNotFoundError,
        advice="the server does not serve {model}: see 'radserve models'",
        retry=Retry.NEW_CONTRACT,
        quotes=True,
    ),
    grpc.StatusCode.INVALID_ARGUMENT: _Meaning(
        error=RequestRejectedError, advice="the server refused the request to {model}", quotes=True
    ),
    grpc.StatusCode.OUT_OF_RANGE: _Meaning(error=RequestRejectedError, advice="the server refused the request"),
    grpc.StatusCode.FAILED_PRECONDITION: _Meaning(error=RequestRejectedError, advice="the server refused the request"),
    grpc.StatusCode.UNIMPLEMENTED: _Meaning(
        error=RequestRejectedError, advice="what answers at {url} is no Triton, or an old one: check the port"
    ),
    grpc.StatusCode.UNAUTHENTICATED: _Meaning(error=UnauthenticatedError, advice="the server wants credentials"),
    grpc.StatusCode.PERMISSION_DENIED: _Meaning(
        error=UnauthenticatedError, advice="the server wants other credentials"
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: _Meaning(
        error=ServerOverloadedError,
        advice="the server or gateway limits requests: try again later, or less at once",
        retry=Retry.BACK_OFF,
    ),
}
_OTHER = _Meaning(error=InferenceFailedError, advice="{model} failed: see the server's log for this request id")


def translate(
    code: grpc.StatusCode,
    details: str,
    *,
    url: str,
    model: str | None = None,
    version: int | None = None,
    request_id: str | None = None,
    credentials_changed: bool = False,
) -> ServerError:
    """Make a typed error of gRPC's status; the text decides where the code is ambiguous.

    Args:
        code: gRPC's.
        details: Its text.
        url: The server that was asked.
        model: The model that the call named, if any.
        version: The version that the call named, if any.
        request_id: The id in the request, if any.
        credentials_changed: Whether there are other credentials than those that were sent.
    """
    meaning = _BY_CODE.get(code, _OTHER)
    for of_code, text, special in _BY_TEXT:
        if of_code is code and text in details:
            meaning = special
            break
    message = meaning.advice.format(url=url, model=model or "the server")
    if meaning.quotes and details and not details.startswith("in ensemble"):
        told = _REQUEST_ID.sub("", details).split(" NOTE:")[0]
        shown = "".join(character if character.isprintable() else " " for character in told)
        message = f"{message} ({shown[:_SHOWN_CHARACTERS]})"
    if request_id:
        message = f"{message} [request {request_id}]"
    retry = meaning.retry
    if meaning.error is UnauthenticatedError and credentials_changed:
        retry = Retry.NEW_CREDENTIALS
    return meaning.error(
        message, model=model, version=version, request_id=request_id, code=code.name, endpoint=url, retry=retry
    )
