"""The only user of gRPC: connections to Triton, and its errors made ours."""

from radserve._transport._aio import AsyncTransport
from radserve._transport._sync import Cancellable, SyncTransport

__all__ = ["AsyncTransport", "Cancellable", "SyncTransport"]
