"""Certificates and keys of the client: which are taken, and when they are read again."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from radserve.errors import InputError
from radserve.options import TLS, ClientOptions, Secret

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1:8001"


@pytest.fixture
def identity(tmp_path: Path, pems: Path) -> tuple[Path, Path, Path]:
    """Files that are in use: of an authority, of a key and of its certificate."""
    ca, key, chain = tmp_path / "ca.pem", tmp_path / "key", tmp_path / "chain"
    for file, name in ((ca, "one.pem"), (key, "one.key"), (chain, "one.pem")):
        file.write_bytes((pems / name).read_bytes())
    return ca, key, chain


def test_certificates_are_read_again_as_a_pair_and_never_shown(identity: tuple[Path, Path, Path], pems: Path) -> None:
    _, key, chain = identity
    tls = TLS.from_files(*identity)
    assert tls.current() is tls
    key.write_bytes((pems / "two.key").read_bytes())
    assert tls.current() is tls, "a new key beside the old certificate"
    chain.write_bytes((pems / "two.pem").read_bytes())
    found = tls.current()
    assert (found.private_key, found.certificate_chain) == (key.read_bytes(), chain.read_bytes())
    assert found.current() is found
    assert key.read_text().splitlines()[1] not in repr(ClientOptions(endpoints=("127.0.0.1:8001",), tls=found))


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_while_a_file_is_being_rewritten_the_certificates_in_use_stay(
    identity: tuple[Path, Path, Path], place: int, share: float
) -> None:
    tls, file = TLS.from_files(*identity), identity[place]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert tls.current() is tls
    file.unlink()
    assert tls.current() is tls
    file.write_bytes(whole)
    assert tls.current() == tls


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("content", [b"", b"\x30\x82\x03", b"-----BEGIN CERTIFICATE-----\nAA", b"ssh-rsa ZZCANARYZZ"])
def test_what_is_no_whole_pem_file_is_refused_by_its_name(
    identity: tuple[Path, Path, Path], place: int, content: bytes
) -> None:
    names = ("root_certificates", "private_key", "certificate_chain")
    given: dict[str, Any] = {name: file.read_bytes() for name, file in zip(names, identity, strict=True)}
    with pytest.raises(InputError, match=rf'^{names[place]} must hold whole PEM text \("-----BEGIN '):
        TLS(**given | {names[place]: content})
    identity[place].write_bytes(content)
    with pytest.raises(InputError, match=rf"^the file .*{identity[place].name} must hold whole PEM text") as caught:
        TLS.from_files(*identity)
    assert "ZZCANARYZZ" not in str(caught.value)


@pytest.mark.parametrize("place", [0, 2])
def test_a_certificate_that_cannot_be_read_is_refused(identity: tuple[Path, Path, Path], place: int) -> None:
    lines = identity[place].read_text().splitlines(keepends=True)
    identity[place].write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(InputError, match=rf"{identity[place].name} holds a certificate that cannot be read"):
        TLS.from_files(*identity)


def test_certificates_with_words_between_them_are_taken(identity: tuple[Path, Path, Path], pems: Path) -> None:
    content = b"".join((pems / f"{name}.pem").read_bytes() + "Stra\xdfe\n".encode("latin-1") for name in ("one", "two"))
    assert TLS(root_certificates=content).root_certificates == content
    chain = identity[2].read_bytes()
    assert TLS(private_key=identity[1].read_bytes(), certificate_chain=chain + content).certificate_chain


def test_key_and_certificate_are_not_mixed_up(pems: Path) -> None:
    with pytest.raises(InputError, match=r"one\.key must hold whole PEM text .*BEGIN CERTIFICATE"):
        TLS.from_files(None, pems / "one.pem", pems / "one.key")


def test_a_key_of_another_certificate_or_with_a_passphrase_is_refused(pems: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", str(pems / "one.key"), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed program
    for key in (pems / "two.key", locked):
        with pytest.raises(InputError, match=rf"{key.name} and the file .*one\.pem are no key"):
            TLS.from_files(None, key, pems / "one.pem")


def test_a_link_that_is_turned_over_counts_as_replaced(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name, encoding="utf-8")
        os.utime(tmp_path / name / "token", ns=(0, 0))
    (tmp_path / "data").symlink_to("one")
    secret = Secret.from_file(tmp_path / "data" / "token")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "data")
    assert secret.read() == "two"


def test_certificates_are_taken_from_the_level_that_names_them(tmp_path: Path, pems: Path) -> None:
    low, high = pems / "one.pem", pems / "two.pem"
    file = tmp_path / "c"
    file.write_text(f"[radserve]\ntls_ca = {low}\n", encoding="utf-8")
    given: dict[str, Any]
    for expected, given in (
        (low.read_bytes(), {}),
        (high.read_bytes(), {"tls_ca": high}),
        (low.read_bytes(), {"tls": True}),
        (None, {"tls": TLS()}),
    ):
        tls = ClientOptions.load(file=file, environ={}, endpoints=HOST, **given).tls
        assert tls is not None
        assert tls.root_certificates == expected
    assert ClientOptions.load(file=file, environ={}, endpoints=HOST, tls=False).tls is None
