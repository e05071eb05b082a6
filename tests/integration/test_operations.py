"""What the guide for operators says of certificates, done to a real gateway and a real Triton."""

from __future__ import annotations

import shutil
import ssl
from functools import partial
from typing import TYPE_CHECKING

from support.echo import furnished, write_echo
from support.envoys import envoy, place
from support.servers import raw_server, wait_until, write_certificate

from radserve import TLS, Client, ServerUnavailableError
from radserve_server import EmbeddedServer
from radserve_server.gateway import canary_of

if TYPE_CHECKING:
    from pathlib import Path


def _shown(url: str) -> str:
    host, port = url.split(":")
    return ssl.get_server_certificate((host, int(port))).strip()


def _passes(url: str, folder: Path, name: str, authorities: str) -> bool:
    shown = TLS.from_files(folder / authorities, folder / f"{name}.key", folder / f"{name}.pem")
    with Client(url, tls=shown) as client:
        try:
            return client.model("echo").contract.name == "echo"
        except ServerUnavailableError:
            return False


def test_triton_shows_a_renewed_certificate_after_a_restart_alone(tmp_path: Path) -> None:
    write_certificate(tmp_path, "ca")
    for name in ("old", "new"):
        write_certificate(tmp_path, name, "ca")
    old, new = ((tmp_path / f"{name}.pem").read_text().strip() for name in ("old", "new"))
    write_echo(tmp_path / "models")
    place(tmp_path, "old")
    files = [f"--grpc-server-{kind}={tmp_path}/placed/tls.{end}" for kind, end in (("cert", "crt"), ("key", "key"))]
    with raw_server(tmp_path / "models", "--grpc-use-ssl=true", *files) as (_, url):
        place(tmp_path, "new")
        assert _shown(url) == old
    with raw_server(tmp_path / "models", "--grpc-use-ssl=true", *files) as (_, url):
        assert _shown(url) == new


def test_nobody_is_refused_while_an_authority_is_replaced(tmp_path: Path) -> None:
    folder = furnished(tmp_path)
    old, new = (folder / "ca.pem").read_text(), (folder / "other-ca.pem").read_text()
    (folder / "both.pem").write_text(old + new)
    write_certificate(folder, "renewed", "other-ca")

    def put(source: str, target: str) -> None:
        shutil.copy(folder / source, folder / "new")
        (folder / "new").replace(folder / "placed" / target)

    with (
        EmbeddedServer(folder / "models", supervise=False, verify=False) as replica,
        envoy(folder, [replica.grpc_url], canary_of(folder / "models", "echo")) as gateway,
    ):
        passes = partial(_passes, gateway.url, folder)
        assert not passes("stranger", "both.pem")  # has a certificate of the new authority already
        put("both.pem", "ca.crt")  # step 1
        assert wait_until(lambda: passes("stranger", "both.pem"))
        assert passes("client", "both.pem")
        put("renewed.key", "tls.key")  # step 2
        put("renewed.pem", "tls.crt")
        assert wait_until(lambda: _shown(gateway.url) == (folder / "renewed.pem").read_text().strip())
        assert passes("client", "both.pem")
        assert passes("stranger", "both.pem")
        put("other-ca.pem", "ca.crt")  # step 3
        assert wait_until(lambda: not passes("client", "both.pem"))
        assert passes("stranger", "other-ca.pem")
