"""What PEM text must be before gRPC has it.

Of a file that is empty or half written gRPC aborts the process, trusts the
authorities of its own instead, or fails calls as if no server were there.
"""

from __future__ import annotations

import os
import re
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from radserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)  # RFC 7468


def check_certificates(content: bytes, where: str) -> None:
    """Refuse what holds no certificate, half of one, or one that cannot be read.

    Raises:
        InputError: It does.
    """
    certificates = [block[0].decode("latin-1") for block in _blocks(content, b"CERTIFICATE", where)]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(certificates))
    except (ssl.SSLError, ValueError):
        msg = f"{where} holds a certificate that cannot be read: write the file anew"
        raise InputError(msg) from None


def check_pair(key: bytes, chain: bytes, where: tuple[str, str]) -> None:
    """Refuse a private key that cannot be read, or is not that of the chain's first certificate.

    Args:
        key: The key, as PEM text.
        chain: The certificates, checked.
        where: What to call both.

    Raises:
        InputError: It is not.
    """
    _blocks(key, b"PRIVATE KEY", where[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # how strong they must be is for the server to say
    try:
        with _as_file(key) as key_file, _as_file(chain) as chain_file:
            context.load_cert_chain(chain_file, key_file, password=lambda: b"")  # never ask at the terminal
    except ssl.SSLError:
        msg = f"{where[0]} and {where[1]} are no key, readable without a passphrase, and its certificate"
        raise InputError(msg) from None
    except OSError as error:
        msg = f"{where[0]} cannot be checked against {where[1]}: {error.strerror}"
        raise InputError(msg) from None


def _blocks(content: bytes, label: bytes, where: str) -> list[re.Match[bytes]]:
    found = [block for block in _BLOCK.finditer(content) if block[1] == label or block[1].endswith(b" " + label)]
    if not found or b"-----BEGIN" in _BLOCK.sub(b"", content):
        name = label.decode()
        msg = f'{where} must hold whole PEM text ("-----BEGIN {name}-----" to "-----END {name}-----")'
        raise InputError(msg)
    return found


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path, which OpenSSL wants: of what was read and not of what may have replaced it, and not on a disk."""
    with os.fdopen(os.memfd_create("radserve"), "wb", buffering=0) as file:
        file.write(content)
        yield f"/proc/self/fd/{file.fileno()}"
