"""The asynchronous client."""

from radserve.aio._client import AsyncClient
from radserve.aio._model import AsyncModel

__all__ = ["AsyncClient", "AsyncModel"]
