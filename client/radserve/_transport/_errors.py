"""gRPC's codes and Triton's texts to radserve's errors, in one table, and whether a call is made again.

| gRPC code | text | error | again? |
|---|---|---|---|
| CANCELLED |  | ServerUnavailableError | once |
| INVALID_ARGUMENT |  | RequestRejectedError | no |
| DEADLINE_EXCEEDED |  | DeadlineExceededError | no |
| NOT_FOUND | Unable to find shared memory region | ServerUnavailableError | yes |
| NOT_FOUND |  | ModelNotFoundError | once, by the new contract |
| PERMISSION_DENIED |  | UnauthenticatedError | once, with new credentials |
| RESOURCE_EXHAUSTED | larger than max | RequestRejectedError | no |
| RESOURCE_EXHAUSTED |  | ServerOverloadedError | if asked for |
| FAILED_PRECONDITION |  | RequestRejectedError | no |
| OUT_OF_RANGE |  | RequestRejectedError | no |
| UNIMPLEMENTED |  | RequestRejectedError | no |
| INTERNAL | Unable to open shared memory region | RequestRejectedError | no |
| INTERNAL | Failed to increase the shared memory pool | InferenceFailedError | once |
| INTERNAL | is not healthy | InferenceFailedError | once |
| UNAVAILABLE | Exceeds maximum queue size | ServerOverloadedError | if asked for |
| UNAVAILABLE | Request timeout expired | ServerOverloadedError | no |
| UNAVAILABLE | This protocol is restricted | UnauthenticatedError | once, with new credentials |
| UNAVAILABLE | Server is stopping | ServerUnavailableError | yes |
| UNAVAILABLE | is not at ready state | ModelNotFoundError | once, by the new contract |
| UNAVAILABLE | failed to connect to all addresses | ServerUnavailableError | yes |
| UNAVAILABLE | errors resolving | ServerUnavailableError | yes |
| UNAVAILABLE | DNS resolution failed | ServerUnavailableError | yes |
| UNAVAILABLE |  | ServerUnavailableError | once |
| UNAUTHENTICATED |  | UnauthenticatedError | once, with new credentials |
| any other | | InferenceFailedError | no |

"yes": nothing was computed; at another server at once, where there is none after a random pause. "once":
something may have been computed, so that a request which kills servers does not walk through all of them; the
same holds for an attempt whose half of the time is over while another server is left. "if asked for": with
``RetryPolicy.retry_overload``, after a pause. "once, by the new contract": where the server serves another
version; where it is shutting down, "yes". "once, with new credentials": where the token or the key was
replaced since it was sent. All attempts share one budget of time and are at most ``RetryPolicy.attempts``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

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
from radserve.telemetry import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN_CHARACTERS = 200
_NO_ANSWER = "no server answers gRPC at {url}: check that it runs, and that this is its gRPC port"
_TRIED_LAST = re.compile(r"ipv[46]:(\S+): ")  # gRPC tells of one address alone
_REQUEST_ID = re.compile(r"\[request id: [^]]*\] ?")


@dataclass(frozen=True, kw_only=True)
class _Meaning:
    """What a code, or a code with a text in it, means.

    Attributes:
        error: The kind to raise.
        advice: What to do, with ``{url}``, ``{model}`` and its version (``{which}``) to be filled in.
        retry: Whether the call may be made again.
        quotes: Whether Triton's text is told, where it is Triton's own, of
            names, types and shapes: that of a step could quote a patient.
    """

    error: type[ServerError]
    advice: str
    retry: Retry = Retry.NEVER
    quotes: bool = False


_UNKNOWN_HOST = _Meaning(
    error=ServerUnavailableError, advice="the host of {url} is not known: check its name", retry=Retry.ELSEWHERE
)

# Why a connection did not come about, in gRPC's words; each is tested against a real server.
_CONNECTING: Mapping[str, str] = {
    "CERTIFICATE_VERIFY_FAILED": "{url} shows a certificate that is not trusted: check the authorities in tls_ca"
    " (TLS.from_files, --tls-ca), and that the certificate has not expired",
    "Hostname Verification Check failed": "{url} shows a certificate for another host: connect by the name that"
    " stands in it, or have one made for this name",
    "WRONG_VERSION_NUMBER": "something listens at {url}, but not with TLS: check the port, or leave TLS out where"
    " plain text is meant",
    "Tls handshake failed": "something listens at {url}, but the TLS handshake failed: check authorities, host name"
    " and client certificate",
    # In TLS 1.3 a server that wants a client certificate, or another one, hangs up without a word.
    "last error: UNAVAILABLE": "something listens at {url}, but hangs up: check that this is the gRPC port, and"
    " whether it wants TLS, a client certificate (tls_cert and tls_key) or another one",
}

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
    (grpc.StatusCode.UNAVAILABLE, "errors resolving", _UNKNOWN_HOST),
    (grpc.StatusCode.UNAVAILABLE, "DNS resolution failed", _UNKNOWN_HOST),  # an older gRPC's words
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
        "Failed to increase the shared memory pool",
        _Meaning(
            error=InferenceFailedError,
            advice="the shared memory of the server at {url} is full: give it a larger /dev/shm (--shm-size of a"
            " container), or send fewer items in one call",
            retry=Retry.ONCE_ELSEWHERE,
        ),
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
        advice="the server does not serve {which}{model}: see 'radserve models'",
        retry=Retry.NEW_CONTRACT,
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
        error=UnauthenticatedError,
        advice="the server wants other credentials; to list models or read statistics, an operator's",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: _Meaning(
        error=ServerOverloadedError,
        advice="the server or gateway limits requests: try again later, or less at once",
        retry=Retry.BACK_OFF,
    ),
}
_OTHER = _Meaning(error=InferenceFailedError, advice="{model} failed: see the server's log for this request id")


_AGAIN: Mapping[Retry, str] = {
    Retry.NEVER: "no",
    Retry.ELSEWHERE: "yes",
    Retry.ONCE_ELSEWHERE: "once",
    Retry.BACK_OFF: "if asked for",
    Retry.NEW_CONTRACT: "once, by the new contract",
    Retry.NEW_CREDENTIALS: "once, with new credentials",
}


def retry_table() -> str:
    """The table of codes and texts in Markdown, for the documentation."""
    rows = [*_BY_TEXT, *((code, "", meaning) for code, meaning in _BY_CODE.items())]
    order = list(grpc.StatusCode)
    lines = ["| gRPC code | text | error | again? |", "|---|---|---|---|"]
    for code, text, meaning in sorted(rows, key=lambda row: (order.index(row[0]), not row[1])):
        retry = Retry.NEW_CREDENTIALS if meaning.error is UnauthenticatedError else meaning.retry
        lines.append(f"| {code.name} | {text} | {meaning.error.__name__} | {_AGAIN[retry]} |")
    lines.append(f"| any other | | {_OTHER.error.__name__} | {_AGAIN[_OTHER.retry]} |")
    return "\n".join(lines) + "\n"


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
    advice = meaning.advice
    if advice is _NO_ANSWER:
        advice = next((told for text, told in _CONNECTING.items() if text in details), advice)
        if (tried := _TRIED_LAST.search(details)) and (address := unquote(tried[1])) != url:
            advice = f"{advice} (tried last: {address})"
    which = f"version {version} of " if version else ""
    message = advice.format(url=url, which=which, model=one_line(model or "the server"))
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
