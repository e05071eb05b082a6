"""Certificates for development: an authority of this moment, the gateway's certificate and those of its clients."""

from __future__ import annotations

from radserve.errors import MissingExtraError

CLIENT = "client"
OPERATOR = "radserve-operator"


def development_certificates(*names: str) -> dict[str, bytes]:
    """Files by name: the gateway's ``tls.crt``, ``tls.key`` and ``ca.crt``, a client's ``NAME.crt`` and ``NAME.key``.

    Args:
        names: Clients. A certificate of ``radserve-operator`` makes an operator.

    Raises:
        MissingExtraError: ``trustme`` is not installed.
    """
    try:
        import trustme  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        extra = "cluster"
        raise MissingExtraError(extra, "making certificates") from None
    authority = trustme.CA(organization_name="radserve, for development")
    issued = {"tls": authority.issue_cert("localhost", "127.0.0.1", "::1", common_name="gateway")}
    issued |= {name: authority.issue_cert(name, common_name=name) for name in names}
    files = {"ca.crt": authority.cert_pem.bytes()}
    for name, one in issued.items():
        files[f"{name}.crt"] = b"".join(pem.bytes() for pem in one.cert_chain_pems)
        files[f"{name}.key"] = one.private_key_pem.bytes()
    return files
