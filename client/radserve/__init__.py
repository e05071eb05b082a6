"""Typed, coded findings from DICOM files and reports, computed by NVIDIA Triton.

::

    from radserve import Client

    with Client("localhost:8001") as client:
        result = client.model("chest_xray").predict("IM0001.dcm")
"""

from __future__ import annotations

from importlib import import_module
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
from radserve.options import TLS, ClientOptions, Priority, RetryPolicy, Secret
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
    Tensors,
)
from radserve.sources import Geometry

if TYPE_CHECKING:
    from radserve.aio import AsyncClient, AsyncModel
    from radserve.client import Client, Model

__all__ = [
    "TLS",
    "AsyncClient",
    "AsyncModel",
    "Classification",
    "Client",
    "ClientClosedError",
    "ClientOptions",
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
    "RetryPolicy",
    "Secret",
    "Segmentation",
    "ServerError",
    "ServerOverloadedError",
    "ServerUnavailableError",
    "Tensors",
    "UnauthenticatedError",
    "UnsupportedTransferSyntaxError",
]


_CLIENTS = {"AsyncClient": "aio", "AsyncModel": "aio", "Client": "client", "Model": "client"}


def __getattr__(name: str) -> object:
    """Import the clients when they are first asked for: gRPC takes a third of a second."""
    if name in _CLIENTS:
        return getattr(import_module(f"radserve.{_CLIENTS[name]}"), name)
    msg = f"module {__name__} has no attribute {name}"
    raise AttributeError(msg)
