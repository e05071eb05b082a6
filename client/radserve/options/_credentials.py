"""Certificates and secrets, from files that may be replaced while they are in use, or from the environment."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from radserve.errors import InputError
from radserve.options._pem import check_certificates, check_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

_Stamp = tuple[int, int, int] | None
_READS = 3


@dataclass(frozen=True, kw_only=True)
class TLS:
    """Certificates for an encrypted connection.

    Attributes:
        root_certificates: PEM bytes of the certificate authorities to trust;
            None trusts those of gRPC.
        private_key: PEM bytes of the client's key, for mutual TLS.
        certificate_chain: PEM bytes of the client's certificate, for mutual TLS.
    """

    root_certificates: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = field(default=None, repr=False)
    _files: tuple[Path | None, Path | None, Path | None] | None = field(default=None, repr=False, compare=False)
    _stamps: tuple[_Stamp, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse half a client identity, and what gRPC would abort, trust others or fail calls for."""
        if (self.private_key is None) != (self.certificate_chain is None):
            msg = "mutual TLS needs both the client's key and its certificate: give both, or none"
            raise InputError(msg)
        names = ("root_certificates", "private_key", "certificate_chain")
        root, key, chain = (f"the file {path}" for path in self._files) if self._files else names
        if self.root_certificates is not None:
            check_certificates(self.root_certificates, root)
        if self.private_key is not None and self.certificate_chain is not None:
            check_certificates(self.certificate_chain, chain)
            check_pair(self.private_key, self.certificate_chain, (key, chain))

    @classmethod
    def from_files(
        cls,
        root_certificates: str | Path | None = None,
        private_key: str | Path | None = None,
        certificate_chain: str | Path | None = None,
    ) -> TLS:
        """Read PEM files; a client that is given them reads them again when they are replaced.

        Args:
            root_certificates: File of the certificate authorities to trust.
            private_key: File of the client's private key.
            certificate_chain: File of the client's certificate chain.

        Raises:
            InputError: A file cannot be read or is no whole PEM file, key and certificate do not belong
                together, or only one of them is given.
        """
        files = tuple(
            None if path is None else Path(path) for path in (root_certificates, private_key, certificate_chain)
        )
        stamps: tuple[_Stamp, ...] = ()
        contents: list[bytes | None] = []
        for _ in range(_READS):  # key and certificate of one pair: nothing was replaced while they were read
            stamps = tuple(_stamp(path) for path in files)
            contents = [None if path is None else content_of(path) for path in files]
            if stamps == tuple(_stamp(path) for path in files):
                break
        authorities, key, chain = contents
        return cls(
            root_certificates=authorities,
            private_key=key,
            certificate_chain=chain,
            _files=(files[0], files[1], files[2]),
            _stamps=stamps,
        )

    def current(self) -> TLS:
        """These certificates, or those that their files hold now; while these are no whole set, the ones in use."""
        if self._files is None or self._stamps == tuple(_stamp(path) for path in self._files):
            return self
        try:
            return TLS.from_files(*self._files)
        except InputError:  # in the middle of being replaced
            return self


class Secret:
    """A token or key, read where it is kept; its representation never shows it.

    Made by ``from_file`` or ``from_environment``.
    """

    def __init__(self, place: Path | str, environ: Mapping[str, str]) -> None:
        self._place = place
        self._environ = environ
        self._stamp: _Stamp = None
        self._value = ""
        self._refresh()

    @classmethod
    def from_file(cls, path: str | Path) -> Secret:
        """A secret that is a file's text, white space at its ends excepted; read again when the file is replaced.

        Raises:
            InputError: The file cannot be read, is empty or holds more than one line.
        """
        return cls(Path(path), {})

    @classmethod
    def from_environment(cls, variable: str, environ: Mapping[str, str] | None = None) -> Secret:
        """A secret that is an environment variable's value.

        Args:
            variable: Its name.
            environ: The environment; None takes the process's.

        Raises:
            InputError: The variable is not set or empty.
        """
        return cls(variable, os.environ if environ is None else environ)

    def __repr__(self) -> str:
        return f"Secret({self._place})"

    def __eq__(self, other: object) -> bool:
        return self._place == other._place if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._place)

    def __reduce__(self) -> tuple[type[Secret], tuple[Path | str, dict[str, str]]]:
        # For a process of this one's own: it need not have the variable.
        environ = {self._place: self._value} if isinstance(self._place, str) else {}
        return Secret, (self._place, environ)

    def read(self) -> str:
        """The secret as it is now; where it cannot be read, as it was."""
        with suppress(InputError):  # in the middle of being replaced
            self._refresh()
        return self._value

    def _refresh(self) -> None:
        if isinstance(self._place, str):
            value = self._environ.get(self._place, "").encode(errors="replace")
            self._value = _told(value, f"the variable {self._place}")
        elif (stamp := _stamp(self._place)) is None or stamp != self._stamp:
            self._value = _told(content_of(self._place), f"the file {self._place}")
            self._stamp = stamp


def _stamp(path: Path | None) -> _Stamp:
    """What changes when a file, or a link on its way, is replaced."""
    if path is None:
        return None
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def content_of(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"cannot read the file {path}: {error.strerror}"
        raise InputError(msg) from None


def _told(content: bytes, where: str) -> str:
    """The secret in a file or variable; gRPC carries printable ASCII alone."""
    value = content.strip()
    if not value or not all(0x20 <= byte < 0x7F for byte in value):  # noqa: PLR2004 - ASCII's printable range
        msg = f"{where} must hold one line of printable ASCII, the secret"
        raise InputError(msg)
    return value.decode("ascii")
