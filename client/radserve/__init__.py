"""Typed, coded findings from DICOM files and reports, computed by NVIDIA Triton.

::

    from radserve import Client

    with Client("localhost:8001") as client:
        result = client.model("chest_xray").predict("IM0001.dcm")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from radserve.results import (
    Classification,
    EvidenceMap,
    Finding,
    GeneratedText,
    ImageFindings,
    Progress,
    Provenance,
    Region,
    Rejection,
    Result,
    Segmentation,
)
from radserve.sources import Geometry

if TYPE_CHECKING:
    from radserve.client import Client, Model

__all__ = [
    "TLS",
    "Classification",
    "Client",
    "ClientClosedError",
    "ContractError",
    "DeadlineExceededError",
    "DecodeError",
    "DicomError",
    "EvidenceMap",
    "Finding",
    "GeneratedText",
    "Geometry",
    "ImageFindings",
    "InconsistentSeriesError",
    "InferenceFailedError",
    "InputError",
    "MissingAttributeError",
    "MissingExtraError",
    "Model",
    "ModelNotFoundError",
    "OutOfScopeError",
    "Priority",
    "Progress",
    "Provenance",
    "RadserveError",
    "Region",
    "Rejection",
    "RequestRejectedError",
    "Result",
    "Segmentation",
    "ServerError",
    "ServerOverloadedError",
    "ServerUnavailableError",
    "UnauthenticatedError",
    "UnsupportedTransferSyntaxError",
]


def __getattr__(name: str) -> object:
    """Import the client when it is first asked for: gRPC takes a third of a second."""
    if name in {"Client", "Model"}:
        from radserve import client  # noqa: PLC0415 - see above

        return getattr(client, name)
    msg = f"module {__name__} has no attribute {name}"
    raise AttributeError(msg)
