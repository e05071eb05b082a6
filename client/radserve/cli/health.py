"""``radserve health``: do the models really answer?"""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from radserve.cli._options import Config, Insecure, Json, Timeout, TlsCa, TlsCert, TlsKey, Url, connect, documented


@documented
def health(
    model: Annotated[str | None, typer.Argument(help="A public model; all of them where none is named.")] = None,
    *,
    url: Url = None,
    json: Json = False,
    timeout: Timeout = None,
    insecure: Insecure = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config: Config = None,
) -> None:
    """Run a real inference on harmless data; exit 0 where every model answers, else 1.

    Example: radserve health --url localhost:8001
    """
    with connect(
        url,
        timeout=timeout,
        insecure=insecure,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        config=config,
    ) as client:
        taken_s = client.health(model)
    for name, seconds in taken_s.items():
        if json:
            typer.echo(jsonlib.dumps({"model": name, "healthy": True, "seconds": round(seconds, 6)}))
        else:
            typer.echo(f"{name} answers ({1000 * seconds:.1f} ms)")
