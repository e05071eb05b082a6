"""Every error radserve raises, in one tree.

::

    RadserveError
    ├ InputError(ValueError)         refused before any I/O
    │ ├ DicomError
    │ │ ├ MissingAttributeError      ├ UnsupportedTransferSyntaxError
    │ │ ├ DecodeError                └ InconsistentSeriesError
    │ └ OutOfScopeError              outside what the model's contract accepts
    ├ ContractError                  the server's contract is absent, malformed or too new
    ├ ClientClosedError
    ├ ServerError(model, version, request_id, code)
    │ ├ ServerUnavailableError   ├ ServerOverloadedError   ├ DeadlineExceededError(TimeoutError)
    │ ├ ModelNotFoundError       ├ RequestRejectedError    ├ UnauthenticatedError
    │ └ InferenceFailedError
    ├ MissingExtraError(ImportError)
    ├ ServerStartError
    └ ExportError
      ├ SpecError   ├ UntrustedModelError   ├ ConversionError
      ├ ParityError(report)              └ RepositoryError

A message says what to do next. It names DICOM keywords and models, never a
value read from a patient's file.
"""

from __future__ import annotations

import copyreg
from enum import Enum
from typing import Any


class RadserveError(Exception):
    """Base of every error that radserve raises on purpose; can be pickled, for other processes.

    Attributes:
        is_final: Whether the input itself is at fault, so that asking about it again, later or
            elsewhere, cannot help. True of most InputErrors alone: not of a decoder that is not
            installed or was killed, of a file that cannot be read now, or of too little memory.
    """

    is_final: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class: some take other arguments than what str() tells.
        return copyreg.__newobj__, (type(self),), {**self.__dict__, "args": self.args}  # type: ignore[attr-defined]


class InputError(RadserveError, ValueError):
    """An input was refused before anything was sent to a server."""

    def __init__(self, *args: object, is_final: bool = True) -> None:
        super().__init__(*args)
        self.is_final = is_final


class DicomError(InputError):
    """A DICOM file or data set cannot be used."""


class MissingAttributeError(DicomError):
    """An attribute that the contract needs is absent or empty.

    Attributes:
        keyword: The DICOM keyword of the attribute (PS3.6).
    """

    def __init__(self, keyword: str, reason: str) -> None:
        super().__init__(f"{keyword} is missing: {reason}")
        self.keyword = keyword


class UnsupportedTransferSyntaxError(DicomError):
    """The transfer syntax needs a decoder that is not installed, or has none."""


class DecodeError(DicomError):
    """The file is truncated, contradicts itself or cannot be decoded."""


class InconsistentSeriesError(DicomError):
    """The files given do not form one complete series."""


class OutOfScopeError(InputError):
    """The input is outside what the model's contract accepts."""


class ContractError(RadserveError):
    """The server's contract is absent, malformed or newer than this SDK."""


class ClientClosedError(RadserveError):
    """The client was closed before the call."""


class Retry(Enum):
    """Whether a call that did not succeed may be made again, and where."""

    NEVER = "never"
    ELSEWHERE = "elsewhere"  # nothing was computed: at once at another server, here after a pause
    ONCE_ELSEWHERE = "once elsewhere"  # something may have been: a request that kills a server must not walk
    BACK_OFF = "back off"  # only after a pause, and only if the caller wants it
    NEW_CONTRACT = "new contract"  # once, prepared by the contract that is served now
    NEW_CREDENTIALS = "new credentials"  # once, if they have changed since


class ServerError(RadserveError):
    """A call reached for the server and did not succeed.

    Attributes:
        model: The public model's name, if the call named one.
        version: The model version the call named, if any.
        request_id: The id sent with the request, for the server's log.
        code: The gRPC status code's name, for example ``"UNAVAILABLE"``.
        endpoint: ``host:port`` of the server that was asked, if one was.
        retry: Whether the call may be made again.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        version: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
        endpoint: str | None = None,
        retry: Retry = Retry.NEVER,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.version = version
        self.request_id = request_id
        self.code = code
        self.endpoint = endpoint
        self.retry = retry


class ServerUnavailableError(ServerError):
    """No server answers, or it is leaving: try again later or elsewhere."""


class ServerOverloadedError(ServerError):
    """The server's queue is full or the request waited too long in it."""


class DeadlineExceededError(ServerError, TimeoutError):
    """The answer did not come within the time allowed."""


class ModelNotFoundError(ServerError):
    """The server has no such model or version, or it is not loaded."""


class RequestRejectedError(ServerError):
    """The server refused the request as malformed: trying again will not help."""


class UnauthenticatedError(ServerError):
    """The server or gateway wants credentials, or other ones."""


class InferenceFailedError(ServerError):
    """The model failed on this input, or its answer cannot be trusted."""


def installing(extra: str) -> str:
    """The step that installs an extra: from a checkout, for radserve is on no package index, and anyone could be."""
    return f"pip install '.[{extra}]' in a checkout of radserve"


class MissingExtraError(RadserveError, ImportError):
    """An optional part of radserve is not installed.

    Attributes:
        extra: The name of the extra that brings it.
    """

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: {installing(extra)}")
        self.extra = extra


class ServerStartError(RadserveError):
    """The embedded server could not be started, or died."""


class ExportError(RadserveError):
    """An export stopped; nothing was published."""


class SpecError(ExportError):
    """The export spec is missing, malformed or contradicts the model."""


class UntrustedModelError(ExportError):
    """The model file asks for code to be run, and was not loaded."""


class ConversionError(ExportError):
    """The model cannot be converted to ONNX."""


class ParityError(ExportError):
    """The exported graph does not answer as the Keras model does.

    Attributes:
        report: Per output, the largest differences and the inputs that made them.
    """

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


class RepositoryError(ExportError):
    """The model repository is damaged, or cannot be written."""
