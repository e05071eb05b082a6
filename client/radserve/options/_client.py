"""All options of a client in one place."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from radserve.errors import InputError
from radserve.options._load import check_objects, load
from radserve.options._policies import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from radserve.audit import AuditLog
    from radserve.contracts import Policy
    from radserve.options._credentials import TLS, Secret

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})\Z")
_MAX_PORT = 65_535
_CLOSEST_PINGS_S = 300.0  # Triton answers closer ones with GOAWAY
_SMALLEST_MESSAGE_BYTES = 2**16
_LARGEST_MESSAGE_BYTES = 2**31 - 1  # of gRPC itself


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a client reaches its servers.

    One that is made directly is what it was given, and ignores the environment
    and the configuration file; ``ClientOptions.load`` takes from them what it was not given.

    Attributes:
        endpoints: ``host:port`` of each server's gRPC service; calls go to the one with the fewest in flight.
        tls: Certificates; None means plain text.
        token: Sent as ``authorization: Bearer ...``, to a gateway that asks for it.
        protocol_key: The key of Triton's restricted protocols, sent as ``triton-grpc-protocol-KEY``.
        protocol_secret: Its value.
        insecure: Allow plain text to a host that is not loopback: patient data and secrets would travel readable.
        timeout_s: Time budget of a call that names none, all its attempts together. With several endpoints
            an attempt leaves half of it for another server, so allow twice the longest answer.
        retry: How often a call is made again.
        shared_memory: Hand arrays to a server on this host through system shared memory instead of the connection.
        keepalive_s: Seconds between pings on a connection that carries calls.
        keepalive_permitted: The servers allow pings closer than 300 s
            (Triton: ``--grpc-http2-min-recv-ping-interval-without-data``).
        max_message_bytes: The largest message, sent or received.
        coalesce: How many inputs of calls that wait at the same time (of ``AsyncModel.predict``, or in one
            ``predict_many``) go into one request; 0 or None sends each alone. Urgent ones always are.
        burned_in_annotation: Whether images with burned-in text may be sent; where this and a model's contract
            differ, the stricter holds. None leaves it to the contract.
        audit: Where each question is noted before it is answered; as settings, ``audit_file``, ``audit_key_file``
            (the site key, every byte of the file) and ``audit_actor`` (who asks).
    """

    endpoints: tuple[str, ...]
    tls: TLS | None = None
    token: Secret | None = None
    protocol_key: str | None = None
    protocol_secret: Secret | None = None
    insecure: bool = False
    timeout_s: float = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    shared_memory: bool = False
    keepalive_s: float = 330.0
    keepalive_permitted: bool = False
    max_message_bytes: int = 2**29
    coalesce: int | None = 8
    burned_in_annotation: Policy | None = None
    audit: AuditLog | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself or what a server would punish."""
        check_objects(self)
        problem = None
        if isinstance(self.endpoints, str) or not self.endpoints or len(set(self.endpoints)) != len(self.endpoints):
            problem = 'give endpoints as different addresses, for example ("a.local:8001", "b.local:8001")'
        elif not all(map(_is_address, self.endpoints)):
            problem = 'endpoints: give each server as "host:port" of its gRPC service, for example "localhost:8001"'
        elif (self.protocol_key is None) != (self.protocol_secret is None):
            problem = "a restricted protocol needs both protocol_key and protocol_secret: give both, or none"
        elif self.protocol_key is not None and not _is_header(self.protocol_key):
            problem = "protocol_key must be letters, digits, '-', '_' and '.', as --grpc-restricted-protocol has it"
        elif not 0 < self.timeout_s < math.inf:
            problem = "timeout_s must be a finite number of seconds above 0"
        elif not 0 < self.keepalive_s < math.inf or (
            self.keepalive_s < _CLOSEST_PINGS_S and not self.keepalive_permitted
        ):
            problem = (
                f"keepalive_s below {_CLOSEST_PINGS_S:g} makes Triton close the connection: give more, or"
                " keepalive_permitted=True where the servers were started to allow it"
            )
        elif not _SMALLEST_MESSAGE_BYTES <= self.max_message_bytes <= _LARGEST_MESSAGE_BYTES:
            problem = f"max_message_bytes must be from {_SMALLEST_MESSAGE_BYTES} to {_LARGEST_MESSAGE_BYTES}"
        elif not _is_count(self.coalesce):
            problem = "coalesce must be a whole number of inputs, 0 to send each alone"
        if problem:
            raise InputError(problem)

    @classmethod
    def load(
        cls, *, file: str | Path | None = None, environ: Mapping[str, str] | None = None, **given: object
    ) -> ClientOptions:
        """Options as given here; else of the environment; else of a file; else the defaults.

        Args:
            file: A configuration file; None takes the one that ``RADSERVE_CONFIG`` names, if any.
            environ: The environment; None takes the process's.
            **given: Attributes of this class (as ``audit`` and ``retry``) or settings of the file, by
                name; None counts as not given.

        Raises:
            InputError: A setting is unknown, malformed or given twice, or a file cannot be read.
        """
        return load(cls, file=file, environ=environ, given=given)


def _is_address(url: object) -> bool:
    address = _ADDRESS.match(url) if isinstance(url, str) else None
    return address is not None and 0 < int(address["port"]) <= _MAX_PORT


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _is_header(name: str) -> bool:
    return bool(name) and name.isascii() and all(character.isalnum() or character in "-_." for character in name)
