"""Typed, coded findings from DICOM files and reports, computed by NVIDIA Triton.

::

    from radserve import Client

    with Client("localhost:8001") as client:
        result = client.model("chest_xray").predict("IM0001.dcm")
"""

from radserve.client import Client, Model
from radserve.errors import (
    ClientClosedError,
    ContractError,
    DeadlineExceededError,
    DecodeError,
    DicomError,
    InconsistentSeriesError,
    InferenceFailedError,
    InputError,
    MissingAttributeError,
    MissingExtraError,
    ModelNotFoundError,
    OutOfScopeError,
    RadserveError,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
    ServerUnavailableError,
    UnauthenticatedError,
    UnsupportedTransferSyntaxError,
)
from radserve.options import TLS, Priority
from radserve.results import Classification, Finding, Provenance, Rejection

__all__ = [
    "TLS",
    "Classification",
    "Client",
    "ClientClosedError",
    "ContractError",
    "DeadlineExceededError",
    "DecodeError",
    "DicomError",
    "Finding",
    "InconsistentSeriesError",
    "InferenceFailedError",
    "InputError",
    "MissingAttributeError",
    "MissingExtraError",
    "Model",
    "ModelNotFoundError",
    "OutOfScopeError",
    "Priority",
    "Provenance",
    "RadserveError",
    "Rejection",
    "RequestRejectedError",
    "ServerError",
    "ServerOverloadedError",
    "ServerUnavailableError",
    "UnauthenticatedError",
    "UnsupportedTransferSyntaxError",
]
