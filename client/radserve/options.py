"""Options of the client: frozen, keyword-only, with enums instead of strings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from radserve.errors import InputError


class Priority(IntEnum):
    """How urgent a request is; the value is Triton's priority level (1 is highest).

    Matches DICOM's Requested Procedure Priority (0040,1003) and Scheduled
    Procedure Step Priority (0074,1200): STAT and HIGH, MEDIUM, ROUTINE and LOW.
    """

    STAT = 1
    URGENT = 2
    ROUTINE = 3


@dataclass(frozen=True, kw_only=True)
class TLS:
    """Certificates for an encrypted connection.

    Attributes:
        root_certificates: PEM bytes of the certificate authorities to trust;
            None trusts those of gRPC.
        private_key: PEM bytes of the client's key, for mutual TLS.
        certificate_chain: PEM bytes of the client's certificate, for mutual TLS.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse half a client identity."""
        if (self.private_key is None) != (self.certificate_chain is None):
            msg = "mutual TLS needs both the client's key and its certificate: give both, or none"
            raise InputError(msg)

    @classmethod
    def from_files(
        cls,
        root_certificates: str | Path | None = None,
        private_key: str | Path | None = None,
        certificate_chain: str | Path | None = None,
    ) -> TLS:
        """Read PEM files.

        Args:
            root_certificates: File of the certificate authorities to trust.
            private_key: File of the client's private key.
            certificate_chain: File of the client's certificate chain.

        Raises:
            InputError: A file cannot be read, or only one of key and certificate is given.
        """

        def read(path: str | Path | None) -> bytes | None:
            if path is None:
                return None
            try:
                return Path(path).read_bytes()
            except OSError as error:
                msg = f"cannot read the certificate file {path}: {error.strerror}"
                raise InputError(msg) from error

        return cls(
            root_certificates=read(root_certificates),
            private_key=read(private_key),
            certificate_chain=read(certificate_chain),
        )


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a call that did not succeed is made again, where that is safe.

    Attributes:
        attempts: At most so many, the first one included; 1 never repeats one.
        first_backoff_s: Longest pause before the second attempt; it doubles from then on,
            and each pause is drawn from 0 to it ("full jitter").
        longest_backoff_s: The pauses grow no longer.
        retry_overload: Whether a full queue is tried again, too.
    """

    attempts: int = 3
    first_backoff_s: float = 0.1
    longest_backoff_s: float = 2.0
    retry_overload: bool = False
