"""Options that the commands which call a server share."""

from __future__ import annotations

import os
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from radserve.options import ClientOptions
from radserve.options._load import SECRETS, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.text import Text

    from radserve.client import Client

__all__ = [
    "Config",
    "Insecure",
    "Json",
    "Timeout",
    "TlsCa",
    "TlsCert",
    "TlsKey",
    "Url",
    "connect",
    "documented",
    "filled_table",
    "names_server",
    "options_of",
    "wide_console",
]

Url = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        metavar="HOST:PORT",
        help="Triton's gRPC service; again for each further server. Else RADSERVE_ENDPOINTS.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0.001,
        help="Longest wait for an answer. Else RADSERVE_TIMEOUT_S, else 30.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Send patient data readable to another host: trusted networks only. Else RADSERVE_INSECURE.",
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Encrypt; trust the certificate authorities in this PEM file. Else RADSERVE_TLS_CA.",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert", metavar="FILE", help="This client's certificate, for mutual TLS. Else RADSERVE_TLS_CERT."
    ),
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key. Else RADSERVE_TLS_KEY.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings that neither options nor RADSERVE_* variables give. Else RADSERVE_CONFIG.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]


_WIDTH = 200
_WITH_OPTION = ("endpoints", "timeout_s", "insecure", "tls_ca", "tls_cert", "tls_key")
_OTHERS = [name for name in (*SETTINGS, *SECRETS) if name not in _WITH_OPTION]
_COMMON = f"""
Further variables, but for the secrets also lines of the configuration file:
{", ".join(f"RADSERVE_{name.upper()}" for name in _OTHERS)}.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""


def documented(command: Callable[..., None]) -> Callable[..., None]:
    """Add to a command's help what those that call a server have in common."""
    command.__doc__ = f"{cleandoc(command.__doc__ or '')}\n{_COMMON}"
    return command


def names_server(url: list[str] | None, config: Path | None) -> bool:
    """Whether the options or the environment say where a server may be found."""
    return bool(url or config or {"RADSERVE_ENDPOINTS", "RADSERVE_CONFIG"} & set(os.environ))


def options_of(
    url: list[str] | None,
    *,
    timeout: float | None,
    insecure: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    config: Path | None,
) -> ClientOptions:
    """A client's options by the command's; what they leave out is as the environment and the configuration file say.

    Raises:
        InputError: An option cannot be used.
    """
    if not names_server(url, config):
        msg = "name the server with --url HOST:PORT, RADSERVE_ENDPOINTS or --config FILE"
        raise typer.BadParameter(msg)
    return ClientOptions.load(
        file=config,
        endpoints=url or None,
        timeout_s=timeout,
        insecure=insecure or None,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )


def connect(url: list[str] | None, **options: Any) -> Client:  # noqa: ANN401 - those of options_of
    """A client by the command's options.

    Raises:
        InputError: An option cannot be used.
    """
    from radserve.client import Client  # noqa: PLC0415 - gRPC is slow to import

    return Client(options=options_of(url, **options))


def wide_console() -> Console:
    """Standard output for tables; as wide as they like where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def filled_table(names: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table without the columns that no row fills; the first one always stays."""
    kept = [place for place in range(len(names)) if not place or any(str(row[place]) for row in rows)]
    table = Table(*(Column(names[place], overflow="fold") for place in kept))
    for row in rows:
        table.add_row(*(row[place] for place in kept))
    return table
