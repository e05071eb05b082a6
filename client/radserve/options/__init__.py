"""Options of the client: frozen, keyword-only, with enums instead of strings."""

from radserve.options._client import ClientOptions
from radserve.options._credentials import TLS, Secret
from radserve.options._policies import Priority, RetryPolicy

__all__ = ["TLS", "ClientOptions", "Priority", "RetryPolicy", "Secret"]
