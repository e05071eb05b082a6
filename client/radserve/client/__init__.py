"""The synchronous client."""

from radserve.client._client import Client
from radserve.client._model import Model

__all__ = ["Client", "Model"]
